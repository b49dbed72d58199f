//! Budgets: a file 800 lines without its tests, a function 120, a crate 10,000.
//!
//! Exceptions are in `xtask/budgets.toml`, each with a reason. An exception that is no longer needed is a fault.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::spanned::Spanned;
use syn::visit::Visit;
use toml::{Table, Value};

use super::{is_test_file, shown};

const FILE: usize = 800;
const FUNCTION: usize = 120;
const CRATE: usize = 10_000;

/// What goes beyond its budget.
pub fn check(root: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let path = root.join("xtask/budgets.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let exceptions: Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
    let mut over = Vec::new();
    let mut crates: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for file in files.iter().filter(|file| !is_test_file(root, file)) {
        let text = std::fs::read_to_string(file)?;
        let measured = measure(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        let name = shown(root, file);
        *crates.entry(crate_of(root, file)).or_default() += measured.lines;
        if measured.lines > FILE {
            over.push((name.clone(), measured.lines, FILE));
        }
        for (function, lines) in measured.functions.into_iter().filter(|(_, lines)| *lines > FUNCTION) {
            over.push((format!("{name}:{function}"), lines, FUNCTION));
        }
    }
    for (folder, lines) in crates.into_iter().filter(|(_, lines)| *lines > CRATE) {
        over.push((shown(root, &folder), lines, CRATE));
    }
    let mut faults = Vec::new();
    for (name, lines, budget) in &over {
        if exceptions.get(name).and_then(Value::as_str).is_none_or(|reason| reason.trim().is_empty()) {
            faults.push(format!("budget: {name} has {lines} lines, the budget is {budget}"));
        }
    }
    for name in exceptions.keys().filter(|name| !over.iter().any(|(other, ..)| other == *name)) {
        faults.push(format!("budget: the exception for {name} is not needed; remove it from xtask/budgets.toml"));
    }
    Ok(faults)
}

/// The folder of the nearest Cargo.toml.
fn crate_of(root: &Path, file: &Path) -> PathBuf {
    file.ancestors().skip(1).find(|folder| folder.join("Cargo.toml").is_file()).unwrap_or(root).to_owned()
}

/// A file's lines without its tests, and its functions' lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Measured {
    lines: usize,
    functions: Vec<(String, usize)>,
}

fn measure(text: &str) -> Result<Measured> {
    let file = syn::parse_file(text)?;
    let mut measured = Measured { lines: text.lines().count(), functions: Vec::new() };
    measured.visit_file(&file);
    Ok(measured)
}

fn lines_of(node: &impl Spanned) -> usize {
    let span = node.span();
    span.end().line + 1 - span.start().line
}

impl<'ast> Visit<'ast> for Measured {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
        };
        if module.attrs.iter().any(is_test) {
            self.lines = self.lines.saturating_sub(lines_of(module));
        } else {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.functions.push((function.sig.ident.to_string(), lines_of(&function.block)));
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.functions.push((function.sig.ident.to_string(), lines_of(&function.block)));
        syn::visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.functions.push((function.sig.ident.to_string(), lines_of(block)));
        }
        syn::visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count_and_functions_do() {
        let text = "fn a() {\n    1;\n}\nstruct S;\nimpl S {\n    fn b() {\n    }\n}\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n";
        let measured = measure(text).unwrap();
        assert_eq!(measured.lines, 8);
        assert_eq!(measured.functions, [("a".into(), 3), ("b".into(), 2)]);
    }

    #[test]
    fn what_is_over_budget_needs_a_reason_and_reasons_a_need() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("xtask")).unwrap();
        std::fs::write(root.join("Cargo.toml"), "").unwrap();
        let long = root.join("long.rs");
        std::fs::write(&long, format!("fn f() {{\n{}}}\n", "    1;\n".repeat(150))).unwrap();
        let check_with = |exceptions: &str| {
            std::fs::write(root.join("xtask/budgets.toml"), exceptions).unwrap();
            check(root, std::slice::from_ref(&long)).unwrap()
        };
        assert_eq!(check_with(""), ["budget: long.rs:f has 152 lines, the budget is 120"]);
        assert!(check_with("\"long.rs:f\" = \"a table\"").is_empty());
        assert_eq!(check_with("\"long.rs:f\" = \" \"").len(), 1);
        assert_eq!(check_with("\"long.rs:f\" = \"a table\"\n\"gone.rs\" = \"once\"").len(), 1);
    }
}
