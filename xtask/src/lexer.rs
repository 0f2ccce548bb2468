//! Tells Rust code from its comments and literals, as far as the edge check needs it.
//!
//! `Source` holds the file with every comment and literal blanked, line breaks kept, so that words and braces found
//! in it are code; and the string literals with the lines they start on. Not a parser: macros are seen as their tokens.

/// A file, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// The file, with blanks where comments and literals were.
    pub(crate) code: String,
    /// String literals, without their quotes, and the byte offset in `code` at which each starts.
    pub(crate) strings: Vec<(usize, String)>,
}

impl Source {
    pub(crate) fn read(text: &str) -> Self {
        let mut source = Self::default();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (kind, length) = piece(rest, first, source.code.chars().next_back());
            let (part, after) = rest.split_at(length);
            match kind {
                Kind::Code => source.code.push_str(part),
                Kind::Comment => source.blank(part),
                Kind::Text => {
                    let inner = part.trim_start_matches(['b', 'c', 'r']).trim_matches('#');
                    let inner = inner.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(inner);
                    source.strings.push((source.code.len(), inner.to_owned()));
                    source.blank(part);
                }
            }
            rest = after;
        }
        source
    }

    fn blank(&mut self, part: &str) {
        self.code.extend(part.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }));
    }

    /// The line, from 1, of an offset in `code`.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.code.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    /// The same without what only tests compile: everything under `#[cfg(test)]`.
    pub(crate) fn without_tests(&self) -> Self {
        const MARK: &str = "#[cfg(test)]";
        let mut code = String::new();
        let mut strings = Vec::new();
        let mut at = 0;
        while at < self.code.len() {
            let start = self.code[at..].find(MARK).map_or(self.code.len(), |found| at + found);
            let end = item_end(&self.code, start);
            code.push_str(&self.code[at..start]);
            let blank = |byte| if byte == b'\n' { '\n' } else { ' ' };
            code.extend(self.code.bytes().take(end).skip(start).map(blank));
            strings.extend(self.strings.iter().filter(|(offset, _)| (at..start).contains(offset)).cloned());
            at = end;
        }
        Self { code, strings }
    }
}

/// Where the item that starts here ends: at its closing brace, or at a semicolon before any.
pub(crate) fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return offset + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return offset + 1,
            _other => {}
        }
    }
    code.len()
}

enum Kind {
    Code,
    Comment,
    Text,
}

/// What the text starts with, and its length in bytes.
fn piece(text: &str, first: char, before: Option<char>) -> (Kind, usize) {
    if text.starts_with("//") {
        return (Kind::Comment, text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return (Kind::Comment, block_comment(text));
    }
    let in_word = before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    if (first == '"' || (matches!(first, 'r' | 'b' | 'c') && !in_word))
        && let Some(length) = string(text)
    {
        return (Kind::Text, length);
    }
    if first == '\''
        && let Some(length) = character(text)
    {
        return (Kind::Comment, length);
    }
    (Kind::Code, first.len_utf8())
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of the string literal that the text starts with, if it does.
fn string(text: &str) -> Option<usize> {
    let prefix = text.len() - text.trim_start_matches(['b', 'c', 'r']).len();
    let raw = text[..prefix].contains('r');
    let hashes = if raw { text[prefix..].len() - text[prefix..].trim_start_matches('#').len() } else { 0 };
    let open = prefix + hashes;
    if prefix > 2 || !text[open..].starts_with('"') {
        return None;
    }
    if raw {
        let close = format!("\"{}", "#".repeat(hashes));
        return Some(text[open + 1..].find(&close).map_or(text.len(), |end| open + 1 + end + close.len()));
    }
    let mut escaped = false;
    for (offset, byte) in text.bytes().enumerate().skip(open + 1) {
        match byte {
            _any if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(offset + 1),
            _other => {}
        }
    }
    Some(text.len())
}

/// The length of the character literal that the text starts with; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inner = &text[1..];
    let first = inner.chars().next()?;
    if first == '\\' {
        let escaped = inner.chars().nth(1)?.len_utf8();
        return inner[1 + escaped..].find('\'').map(|end| 1 + 1 + escaped + end + 1);
    }
    inner[first.len_utf8()..].starts_with('\'').then(|| 1 + first.len_utf8() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "let a = \"unsafe \\\" {\"; // unsafe\n/* unsafe /* x */ */ let b = r#\"/proc\"#; let c = '{';\nfn f<'a>() {}\n";
        let source = Source::read(text);
        assert!(!source.code.contains("unsafe"), "{}", source.code);
        assert!(source.code.contains("fn f<'a>() {}"));
        assert_eq!(source.code.matches('{').count(), 1);
        let strings: Vec<_> = source.strings.iter().map(|(at, text)| (source.line(*at), text.as_str())).collect();
        assert_eq!(strings, [(1, "unsafe \\\" {"), (2, "/proc")]);
    }

    #[test]
    fn escaped_characters_end_where_they_end() {
        let source = Source::read("('\\'', '\\u{1f}', '\\\\', b'\"', 'é', x)");
        assert_eq!(source.code.split_whitespace().collect::<String>(), "(,,,b,,x)");
    }

    #[test]
    fn tests_are_left_out_on_demand() {
        let source = Source::read(
            "fn a() { \"one\"; }\n#[cfg(test)]\nmod tests { fn b() { \"two\"; } }\nfn c() { \"three\"; }\n",
        );
        let rest = source.without_tests();
        assert!(rest.code.contains("fn a") && rest.code.contains("fn c") && !rest.code.contains("fn b"));
        let strings: Vec<_> = rest.strings.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(strings, ["one", "three"]);
        assert_eq!(rest.code.lines().count(), source.code.lines().count());
    }
}
