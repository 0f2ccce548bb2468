//! The paths that a Rust file names: those of its `use` items, spread out, and those inside its code.
//!
//! `self::` and `super::` are resolved from where the file stands, so that every path starts with a crate's name or
//! `crate`.

use crate::lexer::Source;

/// A path such as `crate::units::Bytes`, and the line it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) path: String,
    pub(crate) line: usize,
}

impl Named {
    /// Whether it is this path or one below it.
    pub(crate) fn is_in(&self, prefix: &str) -> bool {
        self.path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }
}

/// All the paths; `module` is the file's own, such as `["bpf", "maps"]`.
pub(crate) fn named(source: &Source, module: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    let tokens = tokens(&source.code);
    let mut at = 0;
    while at < tokens.len() {
        let (offset, word) = tokens[at];
        let line = source.line(offset);
        // `+ use<'a>` says what a type captures, and imports nothing.
        if word == "use" && tokens.get(at + 1).is_none_or(|(_, next)| *next != "<") {
            let (paths, after) = tree(&tokens, at + 1, &[]);
            found.extend(paths.into_iter().map(|path| Named { path: resolve(&path, module), line }));
            at = after;
        } else if is_word(word) {
            let mut path = vec![word];
            while at + 2 < tokens.len() && tokens[at + 1].1 == "::" && is_word(tokens[at + 2].1) {
                path.push(tokens[at + 2].1);
                at += 2;
            }
            at += 1;
            if path.len() > 1 {
                found.push(Named { path: resolve(&path, module), line });
            }
        } else {
            at += 1;
        }
    }
    found
}

/// The paths of one `use` tree, and the token after it.
fn tree<'a>(tokens: &[(usize, &'a str)], mut at: usize, before: &[&'a str]) -> (Vec<Vec<&'a str>>, usize) {
    let mut path = before.to_vec();
    let mut found = Vec::new();
    while let Some((_, token)) = tokens.get(at) {
        match *token {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|(_, token)| *token != "}") {
                    let (below, after) = tree(tokens, at, &path);
                    found.extend(below);
                    // Behind what ends it, also where that is no comma: then it is no `use`, and goes on all the same.
                    at = after + usize::from(tokens.get(after).is_some_and(|(_, token)| *token != "}"));
                }
                return (found, at + 1);
            }
            "," | ";" | "}" => break,
            "as" => at += 1,
            word if is_word(word) => path.push(word),
            _separator_or_glob => {}
        }
        at += 1;
    }
    found.push(path);
    (found, at)
}

fn resolve(path: &[&str], module: &[String]) -> String {
    let mut rest = path;
    let mut base: Vec<&str> = Vec::new();
    if matches!(path.first(), Some(&"self" | &"super")) {
        let mut here = module;
        while let Some((first @ (&"self" | &"super"), after)) = rest.split_first() {
            if *first == "super" {
                here = here.split_last().map_or(here, |(_, above)| above);
            }
            rest = after;
        }
        base.push("crate");
        base.extend(here.iter().map(String::as_str));
    }
    // A trailing `self` in braces means the module before it.
    base.extend(rest.iter().filter(|word| **word != "self"));
    base.join("::")
}

/// Words, `::`, and single characters, with their offsets.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = code[at..].chars().next() {
        let rest = &code[at..];
        let length = if rest.starts_with("::") {
            2
        } else if is_letter(first) {
            rest.find(|letter| !is_letter(letter)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            found.push((at, &rest[..length]));
        }
        at += length;
    }
    found
}

fn is_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn is_word(token: &str) -> bool {
    token.starts_with(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let module = ["bpf".to_owned(), "maps".to_owned()];
        named(&Source::read(text), &module).into_iter().map(|named| named.path).collect()
    }

    #[test]
    fn use_trees_are_spread_out() {
        let found = paths("pub use std::{fs, io::{self, Read as R}, net::*};\nuse crate::a::b;");
        assert_eq!(found, ["std::fs", "std::io", "std::io::Read", "std::net", "crate::a::b"]);
    }

    #[test]
    fn what_a_type_captures_is_no_import_and_a_tree_that_is_none_has_an_end() {
        assert_eq!(paths("fn f() -> impl A + use<> { g(1); std::h() } use a::b;"), ["std::h", "a::b"]);
        paths("use { f(1); 2 } x");
    }

    #[test]
    fn relative_paths_start_at_the_crate() {
        assert_eq!(
            paths("use super::plan::Plan; use self::x; fn f() { super::super::ledger::g(); }"),
            ["crate::bpf::plan::Plan", "crate::bpf::maps::x", "crate::ledger::g"]
        );
    }

    #[test]
    fn paths_in_code_are_found_and_prefixes_end_at_a_segment() {
        let found = named(&Source::read("\nlet x = std::fs::read(\"p\")?;"), &[]);
        assert_eq!(found, [Named { path: "std::fs::read".to_owned(), line: 2 }]);
        assert!(found[0].is_in("std::fs") && !found[0].is_in("std::f") && !found[0].is_in("std::fs::read_to"));
    }
}
