//! The quality table as a picture: for each workload, how far its last client stays above the physical bound.
//!
//! It is made from the table's Markdown, so that the two cannot say different things. Text has the colour of the page around it.

use super::report::TABLE_HEAD;
use std::fmt::Write;

const WIDTH: u32 = 720;
/// Two lines for each workload: its name, and its bar.
const ROW: u32 = 34;
const TOP: u32 = 34;
/// Room for the number behind the longest bar.
const RIGHT: u32 = 60;
/// Between two lines of the grid, in thousandths of the bound.
const GRID: u32 = 200;

/// One line of the table.
struct Bar<'a> {
    name: &'a str,
    /// Last over bound, in thousandths; `None`: some client never finished.
    permille: Option<u32>,
    /// What stands behind it.
    label: &'a str,
}

/// The picture of a table that [`report`](super::report) made. Errors: the line that is not of such a table.
pub fn svg(table: &str) -> Result<String, String> {
    let lines = table.strip_prefix(TABLE_HEAD).ok_or("the table begins with another head")?;
    let bars = lines.lines().map(|line| bar(line).ok_or(line)).collect::<Result<Vec<_>, _>>()?;
    let most = bars.iter().filter_map(|bar| bar.permille).max().unwrap_or(0).max(1000 + GRID);
    let end = most.next_multiple_of(GRID);
    let x_of = |permille: u32| permille.saturating_sub(1000) * (WIDTH - RIGHT) / (end - 1000);
    let height = TOP + ROW * bars.len() as u32 + 4;

    let mut svg = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(svg, "{text}").expect("writing to a string cannot fail");
    line(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 {} {height}" role="img" font-family="sans-serif" font-size="12" fill="currentColor">"#,
        WIDTH + 8
    ));
    line(format_args!("<title>Time of the last client over the physical bound, for each workload</title>"));
    // For a picture that stands alone; inside a page it has the page's colour.
    line(format_args!("<style>@media (prefers-color-scheme: dark) {{ svg:root {{ color: #ddd; }} }}</style>"));
    for permille in (1000..=end).step_by(GRID as usize) {
        let (x, opacity) = (x_of(permille), if permille == 1000 { 1.0 } else { 0.25 });
        line(format_args!(r#"<path d="M{x} {TOP}V{height}" stroke="currentColor" opacity="{opacity}"/>"#));
        let text = if permille == 1000 { "1 = the bound".to_owned() } else { format!("{:.1}", f64::from(permille) / 1000.0) };
        let anchor = if permille == 1000 { "start" } else { "middle" };
        line(format_args!(r#"<text x="{x}" y="{}" text-anchor="{anchor}">{text}</text>"#, TOP - 8));
    }
    for (at, bar) in bars.iter().enumerate() {
        let (y, x) = (TOP + ROW * at as u32, x_of(bar.permille.unwrap_or(1000)));
        line(format_args!(r#"<text x="4" y="{}">{}</text>"#, y + 14, escape(bar.name)));
        line(format_args!(r##"<rect y="{}" width="{x}" height="10" fill="#3b86c8"/>"##, y + 19));
        line(format_args!(r#"<text x="{}" y="{}" font-weight="bold">{}</text>"#, x + 4, y + 28, escape(bar.label)));
    }
    line(format_args!("</svg>"));
    Ok(svg)
}

fn bar(line: &str) -> Option<Bar<'_>> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    let [name, ratio, last, ..] = cells[..] else { return None };
    match ratio {
        "-" => Some(Bar { name, permille: None, label: last }),
        _ => Some(Bar { name, permille: Some((ratio.parse::<f64>().ok()? * 1000.0).round() as u32), label: ratio }),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::report;

    const TABLE: &str = include_str!("../../../peas-core/src/docs/quality.md");
    const PICTURE: &str = include_str!("../../../peas-core/src/docs/quality.svg");

    /// What the chapter shows is the table of today's workloads, and the picture is of that table.
    #[test]
    fn table_and_picture_of_the_chapter_agree() {
        let again = "`peas-sim report --clients-max 128 --into peas-core/src/docs` makes both";
        let names: Vec<&str> = TABLE.lines().skip(2).filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
        let workloads = report::rows(1, 128);
        assert_eq!(names, workloads.iter().map(|row| &row.name).collect::<Vec<_>>(), "{again}");
        assert_eq!(svg(TABLE).as_deref(), Ok(PICTURE), "{again}");
        for line in TABLE.lines().skip(2) {
            let bar = bar(line).unwrap();
            let (name, label) = (format!(">{}</text>", escape(bar.name)), format!(">{}</text>", bar.label));
            assert!(PICTURE.contains(&name) && PICTURE.contains(&label), "the picture lacks {name} or {label}");
        }
        assert_eq!(PICTURE.matches("<rect ").count(), names.len());
    }

    #[test]
    fn another_number_is_another_picture_and_another_table_is_none() {
        let table = |line: &str| format!("{TABLE_HEAD}{line}\n");
        let one = svg(&table("| a <b> | 1.100 | 5.0 | 4.0 | 1.00 |  | 0.1 % | 0.0 % |")).unwrap();
        let other = svg(&table("| a <b> | 1.101 | 5.0 | 4.0 | 1.00 |  | 0.1 % | 0.0 % |")).unwrap();
        assert!(one.contains("a &lt;b&gt;") && one.contains(">1.100<") && other.contains(">1.101<"));
        let short = svg(&table("| a | - | 3 short | - | 1.00 |  | 0.1 % | 0.0 % |")).unwrap();
        assert!(short.contains(">3 short<") && short.contains(r#"width="0""#));
        assert_eq!(svg("| workload |\n"), Err("the table begins with another head".to_owned()));
        assert_eq!(svg(&table("| a | soon | 1 |")), Err("| a | soon | 1 |".to_owned()));
    }
}
