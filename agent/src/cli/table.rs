//! Plain text tables for people. Control characters of guests and VMMs never reach the terminal.

/// Columns padded to their widest cell, two spaces apart; the last one is not padded.
#[must_use]
pub fn render(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut all = vec![head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    all.extend(rows.into_iter().map(|row| row.into_iter().map(|cell| plain(&cell)).collect()));
    let widths: Vec<usize> = (0..head.len())
        .map(|c| all.iter().filter_map(|row| row.get(c)).map(|s| s.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:<width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Text that others chose, with what steers a terminal or turns the direction of writing replaced.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether a character is not shown but changes what others look like.
#[must_use]
pub fn steers(c: char) -> bool {
    let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_cannot_steer_the_terminal() {
        let text = render(&["A"], vec![vec!["x\x1b[2Jy\u{202e}z".into()]]);
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}'));
    }

    #[test]
    fn columns_line_up() {
        let text = render(&["A", "B"], vec![vec!["long".into(), "1".into()], vec!["x".into(), "2".into()]]);
        assert_eq!(text, "A     B\nlong  1\nx     2\n");
    }
}
