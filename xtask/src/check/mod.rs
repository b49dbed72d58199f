//! `cargo xtask check`: the house's rules.
//!
//! Each rule looks at the tree and returns what it finds wrong, one line each, naming the file and the rule.

mod budgets;
mod source;
mod strata;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::shell;

/// Licences that dependencies may have, besides combinations of them.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "0BSD",
    "CC0-1.0",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
];

/// Runs all checks. `quick` leaves out clippy.
pub fn run(quick: bool) -> Result<()> {
    let root = crate::root();
    let files = sources(&root)?;
    let mut faults = strata::check(&root)?;
    faults.extend(budgets::check(&root, &files)?);
    faults.extend(source::check(&root, &files)?);
    faults.extend(licences(&root)?);
    for fault in &faults {
        eprintln!("{fault}");
    }
    shell::run(shell::command("cargo", ["fmt", "--all", "--check"]).current_dir(&root))?;
    if !quick {
        let words = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        shell::run(shell::command("cargo", words).current_dir(&root))?;
    }
    if !faults.is_empty() {
        bail!("{} faults against the house's rules; they are listed above", faults.len());
    }
    println!("check: {} source files keep the rules", files.len());
    Ok(())
}

/// All Rust files of the workspace.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let listed = shell::output(
        shell::command("git", ["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]).current_dir(root),
    )?;
    let mut files: Vec<_> = listed.lines().map(|line| root.join(line)).filter(|path| path.is_file()).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// Dependencies whose licence is not on the list.
fn licences(root: &Path) -> Result<Vec<String>> {
    let text =
        shell::output(shell::command("cargo", ["metadata", "--format-version", "1", "--locked"]).current_dir(root))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or("?");
        let licence = package["license"].as_str().unwrap_or("");
        if !is_allowed(licence) {
            faults.push(format!("licence: {name} has '{licence}', which is not on the list in xtask/src/check/mod.rs"));
        }
    }
    Ok(faults)
}

/// Whether an SPDX expression can be satisfied from [`LICENCES`]: each part of an AND, one part of an OR.
fn is_allowed(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

/// A path as faults show it.
fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// Whether a file holds tests alone.
fn is_test_file(root: &Path, path: &Path) -> bool {
    let inside = path.strip_prefix(root).unwrap_or(path);
    inside.file_name().is_some_and(|name| name == "tests.rs")
        || inside.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions() {
        for good in
            ["MIT", "MIT OR Apache-2.0", "MIT/Apache-2.0", "(MIT OR GPL-2.0) AND Unicode-3.0", "Unlicense OR MIT"]
        {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-2.0", "LGPL-2.1 OR MPL-2.0"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn test_files_are_told_from_others() {
        let root = Path::new("/r");
        assert!(is_test_file(root, Path::new("/r/vm/src/tests.rs")));
        assert!(is_test_file(root, Path::new("/r/tests/src/lib.rs")));
        assert!(!is_test_file(root, Path::new("/r/vm/src/driver.rs")));
    }
}
