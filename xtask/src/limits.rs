//! How long a file and a function may be before they are to be split.

use crate::lexer::{Source, item_end};

const FILE_LINES: usize = 300;
const FUNCTION_LINES: usize = 60;

/// A file that is too long: an error.
pub(crate) fn file(name: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > FILE_LINES).then(|| format!("{name}: {lines} lines, {FILE_LINES} at most: split it"))
}

/// Functions that are too long: reported.
pub(crate) fn functions(name: &str, source: &Source) -> Vec<String> {
    let code = &source.code;
    let starts =
        code.match_indices("fn ").filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
    let long = starts.filter_map(|(at, word)| {
        let title: String = code[at + word.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let lines = source.line(item_end(code, body(code, at))) + 1 - source.line(at);
        let place = source.line(at);
        (!title.is_empty() && lines > FUNCTION_LINES)
            .then(|| format!("{name}:{place}: `{title}` has {lines} lines, {FUNCTION_LINES} are enough"))
    });
    long.collect()
}

/// Where a function's signature ends; a semicolon inside brackets, as in `[u8; 4]`, does not end it.
fn body(code: &str, start: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' | b';' if depth == 0 => return offset,
            _other => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_functions_are_named() {
        let text = format!("fn short(x: [u8; 4]) {{}}\nfn long() {{\n{}}}\n", "let _ = 1;\n".repeat(60));
        assert_eq!(functions("f.rs", &Source::read(&text)), ["f.rs:2: `long` has 62 lines, 60 are enough"]);
        assert_eq!(file("f.rs", &text), None);
        assert!(file("f.rs", &"\n".repeat(301)).unwrap().contains("301"));
    }
}
