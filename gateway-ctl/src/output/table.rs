//! Columns as wide as their widest cell, and blocks of label and value.

use super::text::printable;

const GAP: &str = "  ";

/// A table with a heading; every line ends without trailing spaces.
pub(crate) fn render(headers: &[&str], rows: &[Vec<String>]) -> String {
    let head = headers.iter().map(|header| (*header).to_owned()).collect();
    let lines: Vec<Vec<String>> =
        std::iter::once(head).chain(rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect())).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| lines.iter().filter_map(|line| line.get(c)).map(|cell| width(cell)).max().unwrap_or(0))
        .collect();
    lines.iter().map(|line| render_line(line, &widths)).collect()
}

/// Lines `label  value`, the values aligned.
pub(crate) fn render_block(lines: &[(&'static str, String)]) -> String {
    let widest = lines.iter().map(|(label, _)| width(label)).max().unwrap_or(0);
    lines.iter().map(|(label, value)| render_line(&[(*label).to_owned(), printable(value)], &[widest, 0])).collect()
}

fn render_line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, &column) in cells.iter().zip(widths) {
        line.push_str(cell);
        let padding = column.saturating_sub(width(cell));
        line.extend(std::iter::repeat_n(' ', padding));
        line.push_str(GAP);
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_spaces() {
        let rows = vec![vec!["lab".into(), "yes".into()], vec!["radiology".into(), String::new()]];
        assert_eq!(render(&["NAME", "ONLINE"], &rows), "NAME       ONLINE\nlab        yes\nradiology\n");
    }

    #[test]
    fn a_cell_with_control_characters_stays_one_harmless_cell() {
        assert_eq!(render(&["N", "O"], &[vec!["a\nb\u{1b}".into(), "c".into()]]), "N     O\na b\u{fffd}  c\n");
    }

    #[test]
    fn a_block_aligns_its_values() {
        assert_eq!(render_block(&[("Id", "1".into()), ("Name", "x".into())]), "Id    1\nName  x\n");
    }
}
