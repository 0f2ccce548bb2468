//! Who may ask over TCP, and how it is kept from others' eyes: TLS, client certificates, passwords and headers, by a file in
//! the form of Prometheus' exporters (docs/http.md). It is read again on SIGHUP and when it or a file it names has
//! changed; a reload takes no protection away. The Unix socket has its file's permissions and none of this.

mod file;
mod guard;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls_off.rs"]
mod tls;
mod users;
mod yaml;

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderName, HeaderValue};

pub(super) use guard::guard;
pub(super) use tls::Acceptor;

/// How often it is looked whether a file has changed at most.
const LOOK: Duration = Duration::from_secs(1);
/// The largest file that is read, bytes.
const MOST: u64 = 1 << 20;

/// Why a web configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the web configuration {path} cannot be used: {why}")]
pub struct WebError {
    path: PathBuf,
    why: String,
}

/// What is asked of clients now.
pub(super) struct Rules {
    /// Encrypts; `None` serves plain HTTP.
    pub(super) tls: Option<Acceptor>,
    pub(super) users: users::Users,
    /// Added to each answer that has them not.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether a client must show a certificate.
    asks_certificates: bool,
    /// All files that this was read from.
    files: Vec<PathBuf>,
}

impl Rules {
    /// Nothing is asked.
    fn none() -> Self {
        let (users, headers) = (users::Users::new(std::collections::BTreeMap::new()), Vec::new());
        Self { tls: None, users, headers, asks_certificates: false, files: Vec::new() }
    }

    /// The rules of this file, with the stamps of all files from before they were read.
    fn read(path: &Path) -> Result<(Self, Vec<Stamp>), String> {
        let mut seen = stamps(&[path.to_owned()]);
        let file = file::File::parse(&text(path)?, path.parent().unwrap_or(Path::new("/")))?;
        let mut files: Vec<_> = file.tls_server_config.files().map(Path::to_owned).collect();
        seen.extend(stamps(&files));
        files.insert(0, path.to_owned());
        let tls = file.tls_server_config.is_set().then(|| tls::acceptor(&file.tls_server_config)).transpose()?;
        let rules = Self {
            asks_certificates: file.tls_server_config.asks_certificates(),
            tls,
            headers: file.http_server_config.headers()?,
            users: file.users()?,
            files,
        };
        Ok((rules, seen))
    }

    /// What these would no longer ask for and `before` did.
    fn gives_up(&self, before: &Self) -> Option<&'static str> {
        [
            ("TLS", before.tls.is_some() && self.tls.is_none()),
            ("client certificates", before.asks_certificates && !self.asks_certificates),
            ("passwords", !before.users.is_empty() && self.users.is_empty()),
        ]
        .into_iter()
        .find_map(|(what, gone)| gone.then_some(what))
    }
}

/// The bytes of a file that is no larger than anybody writes.
fn text(path: &Path) -> Result<String, String> {
    let name = path.display();
    let size = std::fs::metadata(path).map_err(|error| format!("{name}: {error}"))?.len();
    if size > MOST {
        return Err(format!("{name} is larger than {MOST} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))
}

/// What tells two contents of a file apart.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let one = |file: &PathBuf| {
        let data = std::fs::metadata(file).ok()?;
        Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
    };
    files.iter().map(one).collect()
}

struct Held {
    rules: Arc<Rules>,
    /// Of the rules' files, before they were read.
    stamps: Vec<Stamp>,
    looked: Instant,
}

/// The rules in force, and the file that they come from.
pub struct Web {
    path: Option<PathBuf>,
    held: Mutex<Held>,
}

impl Web {
    /// Reads the file; without one nothing is asked of anybody.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: Option<&Path>) -> Result<Self, WebError> {
        let (rules, stamps) = match path {
            Some(path) => Rules::read(path).map_err(|why| WebError { path: path.to_owned(), why })?,
            None => (Rules::none(), Vec::new()),
        };
        let rules = Arc::new(rules);
        Ok(Self { path: path.map(Path::to_owned), held: Mutex::new(Held { rules, stamps, looked: Instant::now() }) })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules in force.
    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.held().rules)
    }

    /// The rules in force, read again if a file has changed.
    pub(super) async fn fresh(self: &Arc<Self>) -> Arc<Rules> {
        let due = {
            let mut held = self.held();
            let due = self.path.is_some() && held.looked.elapsed() >= LOOK;
            if due {
                held.looked = Instant::now();
            }
            due
        };
        if due {
            let web = Arc::clone(self);
            // A file may be on a disk that takes its time.
            let _ = tokio::task::spawn_blocking(move || web.look()).await;
        }
        self.rules()
    }

    fn look(&self) {
        let (rules, before) = {
            let held = self.held();
            (Arc::clone(&held.rules), held.stamps.clone())
        };
        if stamps(&rules.files) != before {
            self.reload();
        }
    }

    /// Reads the file again. One that cannot be used, or that gives up what protects, changes nothing and is told of.
    pub fn reload(&self) {
        let Some(path) = &self.path else { return };
        let before = self.rules();
        let seen = stamps(&before.files);
        let read = Rules::read(path).and_then(|(rules, seen)| match rules.gives_up(&before) {
            None => Ok((rules, seen)),
            Some(what) => Err(format!("it no longer asks for {what}, which takes a restart")),
        });
        let mut held = self.held();
        match read {
            Ok((rules, seen)) => {
                (held.rules, held.stamps) = (Arc::new(rules), seen);
                tracing::info!(path = %path.display(), "the web configuration was read again");
            }
            Err(why) => {
                // Told of once for each change.
                held.stamps = seen;
                tracing::error!(
                    path = %path.display(),
                    "the web configuration was not reloaded, the old one stays in force: {why}"
                );
            }
        }
    }
}
