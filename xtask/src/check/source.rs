//! Rules about the text of source files: headers, unsafe code, allowances, things that must not be written.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{is_test_file, shown};

/// Words that mark unfinished work. Pieced together, so that this file does not hold them.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];

/// How unsafe code begins.
const UNSAFE: &[&str] = &["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"];

/// What is wrong with the text of files.
pub fn check(root: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)?;
        let name = shown(root, file);
        faults.extend(faults_of(&text, is_test_file(root, file)).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    Ok(faults)
}

fn faults_of(text: &str, is_test: bool) -> Vec<String> {
    let mut faults = Vec::new();
    // What tests test is said where the module that they belong to begins.
    if !is_test && !text.lines().next().is_some_and(|line| line.starts_with("//! ")) {
        faults.push("header: a module opens with `//!`: what it is, its key types, its neighbours".into());
    }
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let any = |word: &str| code.iter().any(|line| holds(line, word));
    let opts_in = any("#![expect(unsafe_code") || any("#[expect(unsafe_code");
    if UNSAFE.iter().any(|word| any(word)) && !opts_in {
        faults.push("unsafe: a file opts in with `#![expect(unsafe_code, reason = ..)]`".into());
    }
    if opts_in && !text.contains("UNSAFETY:") {
        faults.push("unsafe: a file that opts in says why in an `// UNSAFETY:` note".into());
    }
    if any("#[allow(") || any("#![allow(") {
        faults.push("allow: write `expect` with a reason instead".into());
    }
    for word in UNFINISHED {
        if text.contains(word) {
            faults.push(format!("unfinished: it holds {word}"));
        }
    }
    if !is_test && any("dbg!(") {
        faults.push("debugging: it holds a dbg macro".into());
    }
    faults
}

/// Whether a line of code holds a word, other than in a string or as the end of another word.
fn holds(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].replace("\\\"", "");
        before.matches('"').count().is_multiple_of(2) && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_files_have_no_faults() {
        assert!(faults_of("//! Fine.\n\nfn f() {}\n", false).is_empty());
        let opted = "//! Fine.\n#![expect(unsafe_code, reason = \"x\")]\n// UNSAFETY: y\nfn f() { unsafe { g() } }\n";
        assert!(faults_of(opted, false).is_empty());
    }

    #[test]
    fn each_rule_is_applied() {
        for (text, rule) in [
            ("fn f() {}\n", "header"),
            ("//! X\nfn f() { unsafe { g() } }\n", "unsafe: a file opts in"),
            ("//! X\n#![expect(unsafe_code, reason = \"x\")]\n", "UNSAFETY"),
            ("//! X\n#[allow(dead_code)]\nfn f() {}\n", "allow"),
            (concat!("//! X\n// TO", "DO later\n"), "unfinished"),
            ("//! X\nfn f() { dbg!(1); }\n", "debugging"),
        ] {
            let faults = faults_of(text, false);
            assert!(faults.len() == 1 && faults[0].contains(rule), "{text}: {faults:?}");
        }
        assert!(faults_of("//! X\nconst A: &str = \"unsafe {\";\n", false).is_empty());
    }
}
