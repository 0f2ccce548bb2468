//! `Authorization: Basic` against passwords that bcrypt keeps. A check takes some 50 ms of a CPU on purpose, so what was
//! found is remembered, one check is made at a time, and few wait for theirs: guessing is slow and costs nobody else.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

/// Checks that wait for the one under way; who comes then is told to come again.
const MOST_WAITING: usize = 8;
/// Wrong ones that are remembered.
const MOST_WRONG: usize = 256;
/// A hash of a higher cost takes minutes and more.
const MOST_COST: u32 = 18;

/// Who may ask.
pub(in crate::expose) struct Users {
    hashes: BTreeMap<String, String>,
    known: Mutex<Known>,
    under_way: Semaphore,
    waiting: Semaphore,
}

/// What was found of user, hash and password together.
type Tried = [u8; 32];

#[derive(Default)]
struct Known {
    right: HashMap<String, Tried>,
    wrong: VecDeque<Tried>,
}

/// What came of a request's words about its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Welcome,
    /// Nobody, or not with this password.
    Unknown,
    /// Too many ask at once to say.
    Busy,
}

impl Users {
    pub(super) fn new(hashes: BTreeMap<String, String>) -> Self {
        let (known, under_way, waiting) = (Mutex::default(), Semaphore::new(1), Semaphore::new(MOST_WAITING));
        Self { hashes, known, under_way, waiting }
    }

    /// Whether nobody has to say who asks.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// What is wrong with a user.
    pub(super) fn check(name: &str, hash: &str) -> Result<(), String> {
        if name.contains(':') {
            return Err("a user's name can have no colon".to_owned());
        }
        let parts: bcrypt::HashParts = hash.parse().map_err(|_| {
            "is no bcrypt hash, as `htpasswd -nBC 10 NAME` makes one (the password itself does not stand here)"
                .to_owned()
        })?;
        match parts.get_cost() {
            ..=MOST_COST => Ok(()),
            cost => Err(format!("a cost of {cost} takes too long to check, {MOST_COST} is the most")),
        }
    }

    /// Who asks, by the request's headers.
    pub(super) async fn judge(&self, headers: &HeaderMap) -> Verdict {
        if self.is_empty() {
            return Verdict::Welcome;
        }
        let Some((user, password)) = said(headers) else { return Verdict::Unknown };
        // Another user's hash for who is nobody: it takes as long, so that names cannot be guessed by the time it takes.
        let named = self.hashes.get_key_value(&user);
        let Some((name, hash)) = named.or_else(|| self.hashes.first_key_value()) else { return Verdict::Unknown };
        let is_user = named.is_some();
        let tried = digest([user.as_bytes(), hash.as_bytes(), &password]);
        if let Some(verdict) = self.known(name, &tried) {
            return verdict;
        }
        let Ok(_place) = self.waiting.try_acquire() else { return Verdict::Busy };
        let Ok(_turn) = self.under_way.acquire().await else { return Verdict::Busy };
        // The one before may have been the same.
        if let Some(verdict) = self.known(name, &tried) {
            return verdict;
        }
        let hash = hash.clone();
        let checked = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        let Ok(is_right) = checked else { return Verdict::Busy };
        self.remember(name, tried, is_right && is_user)
    }

    fn known(&self, name: &str, tried: &Tried) -> Option<Verdict> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.right.get(name) == Some(tried) {
            return Some(Verdict::Welcome);
        }
        known.wrong.contains(tried).then_some(Verdict::Unknown)
    }

    fn remember(&self, name: &str, tried: Tried, is_right: bool) -> Verdict {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if is_right {
            known.right.insert(name.to_owned(), tried);
            return Verdict::Welcome;
        }
        if known.wrong.len() == MOST_WRONG {
            known.wrong.pop_front();
        }
        known.wrong.push_back(tried);
        Verdict::Unknown
    }
}

/// User and password of `Authorization: Basic` (RFC 7617).
fn said(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let (scheme, coded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = STANDARD.decode(coded.trim()).ok()?;
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let (user, password) = (bytes.get(..colon)?, bytes.get(colon + 1..)?);
    Some((String::from_utf8(user.to_vec()).ok()?, password.to_vec()))
}

fn digest(parts: [&[u8]; 3]) -> Tried {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn users() -> Users {
        let hash = |password: &str| bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap().to_string();
        Users::new([("alice", hash("s3cret")), ("bob", hash("other:one"))].map(|(n, h)| (n.to_owned(), h)).into())
    }

    async fn judged(users: &Users, words: &str) -> Verdict {
        let mut headers = HeaderMap::new();
        if !words.is_empty() {
            let value = format!("bAsic {}", STANDARD.encode(words));
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
        }
        users.judge(&headers).await
    }

    #[tokio::test]
    async fn the_right_password_of_a_user_is_welcome_and_nothing_else_is_however_often() {
        let users = users();
        for _ in 0..2 {
            for right in ["alice:s3cret", "bob:other:one"] {
                assert_eq!(judged(&users, right).await, Verdict::Welcome, "{right}");
            }
            for wrong in
                ["", "alice", "alice:", "alice:other:one", "bob:s3cret", "nobody:s3cret", ":s3cret", "alice:s3cret "]
            {
                assert_eq!(judged(&users, wrong).await, Verdict::Unknown, "{wrong}");
            }
        }
        let mut headers = HeaderMap::new();
        for other in ["Bearer x", "Basic", "Basic !!!", "Basic \u{e9}"] {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(other).unwrap());
            assert_eq!(users.judge(&headers).await, Verdict::Unknown, "{other}");
        }
        assert_eq!(Users::new(BTreeMap::new()).judge(&headers).await, Verdict::Welcome, "nobody is asked");
    }

    #[tokio::test]
    async fn who_was_welcome_is_welcome_while_many_guess_and_guesses_take_no_more_memory() {
        let users = users();
        assert_eq!(judged(&users, "alice:s3cret").await, Verdict::Welcome);
        let busy = users.under_way.acquire().await.unwrap();
        let waiting: Vec<_> = (0..MOST_WAITING).map(|_| users.waiting.try_acquire().unwrap()).collect();
        assert_eq!(judged(&users, "alice:guess").await, Verdict::Busy);
        assert_eq!(judged(&users, "alice:s3cret").await, Verdict::Welcome, "and waits for nobody");
        drop((busy, waiting));
        for guess in 0..MOST_WRONG + 20 {
            assert_eq!(judged(&users, &format!("alice:{guess}")).await, Verdict::Unknown);
        }
        assert_eq!(users.known.lock().unwrap().wrong.len(), MOST_WRONG);
        assert_eq!(judged(&users, "alice:s3cret").await, Verdict::Welcome);
    }

    #[test]
    fn hashes_that_others_make_are_understood() {
        // By crypt(3).
        assert!(bcrypt::verify("s3cret", "$2y$04$QzWDVsvJ0nLGj6s9WvdYC.YOVQfl2G8b8DkBRiIrpbH/K3e/jFaBi").unwrap());
    }

    #[test]
    fn a_hash_that_none_is_or_that_takes_for_ever_is_named() {
        assert!(Users::check("a", "s3cret").unwrap_err().contains("no bcrypt hash"));
        let hash = "$2y$30$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
        assert!(Users::check("a", hash).unwrap_err().contains("cost of 30"));
        assert!(Users::check("a:b", &hash.replace("$30$", "$10$")).unwrap_err().contains("colon"));
        assert_eq!(Users::check("a", &hash.replace("$30$", "$10$")), Ok(()));
    }
}
