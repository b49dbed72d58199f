//! A stratum depends only on strata above it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml::{Table, Value};

/// The strata, and which ones each may use besides itself. `tests`, `benches`, `fuzz` and `xtask` may use anything.
const STRATA: &[(&str, &[&str])] = &[
    ("support", &[]),
    ("x86", &["support"]),
    ("engine", &["support", "x86"]),
    // Of the engines, the machine knows the seam alone; see SEAM.
    ("machine", &["support", "x86", "engine"]),
    ("vm", &["support", "x86", "engine", "machine"]),
    ("manager", &["support", "x86", "engine", "machine", "vm"]),
    ("front", &["support", "x86", "engine", "machine", "vm", "manager"]),
    ("guest", &["x86"]),
];

/// The one crate of `engine` that `machine` may use.
const SEAM: &str = "engine/api";

/// Dependencies against the order of strata.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let manifest = read(&root.join("Cargo.toml"))?;
    let members = strings(manifest.get("workspace").and_then(|workspace| workspace.get("members")));
    let mut homes = BTreeMap::new();
    let mut manifests = Vec::new();
    for member in members {
        let manifest = read(&root.join(&member).join("Cargo.toml"))?;
        let name = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
        homes.insert(name.unwrap_or_default().to_owned(), member.clone());
        manifests.push((member, manifest));
    }
    let mut faults = Vec::new();
    for (member, manifest) in &manifests {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(Value::Table(dependencies)) = manifest.get(section) else { continue };
            let ours = dependencies.keys().filter_map(|name| homes.get(name));
            // Tests may look further down, but not at what knows them.
            let lenient = section == "dev-dependencies";
            faults.extend(ours.filter(|home| !lenient && !may_use(member, home)).map(|home| {
                format!("strata: {member} must not depend on {home}; DESIGN.md and the folder's README say why")
            }));
        }
    }
    for (stratum, _) in STRATA {
        let readme: PathBuf = root.join(stratum).join("README.md");
        if root.join(stratum).is_dir()
            && manifests.iter().any(|(member, _)| top(member) == *stratum)
            && !readme.is_file()
        {
            faults.push(format!("strata: {stratum}/README.md is missing; it states the folder's dependency rule"));
        }
    }
    Ok(faults)
}

fn may_use(user: &str, used: &str) -> bool {
    let (from, to) = (top(user), top(used));
    let Some((_, allowed)) = STRATA.iter().find(|(name, _)| *name == from) else { return true };
    if from == "machine" && to == "engine" {
        return used == SEAM;
    }
    from == to || allowed.contains(&to)
}

fn top(member: &str) -> &str {
    member.split('/').next().unwrap_or(member)
}

fn read(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse().with_context(|| format!("{} is not TOML", path.display()))
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_strata() {
        for (user, used, allowed) in [
            ("x86", "support/savestate", true),
            ("support/savestate", "x86", false),
            ("engine/translator", "x86", true),
            ("engine/translator", "machine/bus", false),
            ("machine/bus", "engine/api", true),
            ("machine/bus", "engine/translator", false),
            ("vm", "engine/translator", true),
            ("vm", "front/cli", false),
            ("front/cli", "vm", true),
            ("tests", "front/cli", true),
            ("xtask", "vm", true),
        ] {
            assert_eq!(may_use(user, used), allowed, "{user} -> {used}");
        }
    }
}
