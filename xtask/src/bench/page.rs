//! Results as text: the tables for the terminal and for `docs/performance.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::contender::Contender::{self, Lodge, Native, Qemu};
use super::results::{Row, processor_mean, verdicts};
use super::suite::Suite;

const HEAD: &str = "| # | work | class | native s | TCG s | lodge s | lodge / native | TCG / lodge |\n\
                    |--:|---|---|--:|--:|--:|--:|--:|\n";

/// One line of the table.
pub fn line(row: &Row) -> String {
    let seconds = |contender: Contender| match row.by.get(&contender) {
        Some(measured) if measured.failure.is_some() => "failed".to_owned(),
        _ => shown(row.seconds(contender), 3),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
        row.work.row,
        row.work.what,
        row.work.class.name(),
        seconds(Native),
        seconds(Qemu),
        seconds(Lodge),
        shown(row.ratio(Lodge, Native), 2),
        shown(row.ratio(Qemu, Lodge), 2),
    )
}

fn shown(value: Option<f64>, places: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.places$}"))
}

/// All tables: the works, what was left out or failed, and the goals.
pub fn tables(suite: Suite, rows: &[Row]) -> String {
    let mut text = HEAD.to_owned();
    let mut lines: Vec<(u8, String)> = rows.iter().map(|row| (row.work.row, line(row))).collect();
    for (number, what, why) in suite.left_out() {
        lines.push((*number, format!("| {number} | {what} | left out: {why} | - | - | - | - | - |\n")));
    }
    lines.sort_by_key(|(number, _)| *number);
    text.extend(lines.into_iter().map(|(_, line)| line));
    text += &format!(
        "| | **geometric mean** | rows that try the processor | | | | **{}** | **{}** |\n",
        shown(processor_mean(rows, Lodge, Native), 2),
        shown(processor_mean(rows, Qemu, Lodge), 2),
    );
    let verdicts = verdicts(rows);
    if !verdicts.is_empty() {
        text += "\n| class | goal, times native | mean | worst | met |\n|---|--:|--:|--:|---|\n";
    }
    for verdict in verdicts {
        let met = if verdict.is_met() { "yes".into() } else { format!("no: {}", verdict.worst.1) };
        let (class, goal, mean, worst) = (verdict.class.name(), verdict.goal, verdict.mean, verdict.worst.0);
        text += &format!("| {class} | {goal} | {mean:.2} | {worst:.2} | {met} |\n");
    }
    let failures: Vec<_> = rows
        .iter()
        .flat_map(|row| row.by.iter().map(move |(contender, measured)| (row, contender, measured)))
        .filter_map(|(row, contender, measured)| {
            let why = measured.failure.as_ref()?;
            Some(format!("* {} on {}: {why}\n", row.work.what, contender.name()))
        })
        .collect();
    if !failures.is_empty() {
        text += &format!("\nFailed:\n\n{}", failures.concat());
    }
    text
}

/// Puts text between a suite's marks in the page.
pub fn write(page: &Path, suite: Suite, content: &str) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let (from, to) = (format!("<!-- {} suite -->\n", suite.name()), format!("<!-- end of {} suite -->", suite.name()));
    let Some((before, rest)) = text.split_once(&from) else { bail!("{} has no {from}", page.display()) };
    let Some((_, after)) = rest.split_once(&to) else { bail!("{} has no {to}", page.display()) };
    fs::write(page, format!("{before}{from}{content}{to}{after}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::row;
    use super::super::suite::Class;
    use super::*;

    #[test]
    fn lines_have_ratios_where_both_sides_ran() {
        let row = row(3, Class::Integer, &[(Lodge, 2.0), (Qemu, 8.0)]);
        assert_eq!(line(&row), "| 3 | what | integer loops | - | 8.000 | 2.000 | - | 4.00 |\n");
    }

    #[test]
    fn the_tables_tell_failures_goals_and_what_is_left_out() {
        let mut failed = row(9, Class::Jit, &[(Native, 1.0), (Lodge, 2.0)]);
        failed.by.get_mut(&Lodge).unwrap().failure = Some("wrong answer".into());
        let text = tables(Suite::Full, &[row(3, Class::Integer, &[(Native, 1.0), (Lodge, 4.0)]), failed]);
        for part in [
            "| 9 | what | JITs | 1.000 | - | failed | - | - |",
            "**4.00**",
            "| integer loops | 3 | 4.00 | 4.00 | no: what |",
            "* what on lodge: wrong answer",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_table_replaces_the_one_between_its_marks() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("page.md");
        fs::write(&page, "a\n<!-- small suite -->\nold\n<!-- end of small suite -->\nb\n").unwrap();
        write(&page, Suite::Small, "new\n").unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert_eq!(text, "a\n<!-- small suite -->\nnew\n<!-- end of small suite -->\nb\n");
        assert!(write(&page, Suite::Full, "x").is_err());
    }
}
