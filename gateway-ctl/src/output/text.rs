//! Text that came from elsewhere, made safe for a terminal.

/// Replaces everything that could move the cursor, start an escape sequence or turn the reading direction. Line ends become spaces:
/// a cell stays a cell.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { safe(c) }).collect()
}

/// The same, but lines stay lines.
pub(crate) fn printable_lines(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c } else { safe(c) }).collect()
}

fn safe(c: char) -> char {
    // Bidirectional controls (Unicode TR 9) can make a name read as another one.
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || turns { '\u{fffd}' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_move_the_cursor_or_turn_the_line() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\r\nd"), "a\u{fffd}[2Jb\u{fffd}c  d");
        assert_eq!(printable_lines("a\nb\u{7}"), "a\nb\u{fffd}");
        assert_eq!(printable("Klinik Öst – 東"), "Klinik Öst – 東");
    }
}
