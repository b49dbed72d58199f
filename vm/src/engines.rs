//! The engines that this build has, and the choice among them.

use std::sync::Arc;

use lodge_engine_api::{Engine, Verdict};

/// All engines, best first. To add an engine, add a line.
pub fn all() -> Vec<Arc<dyn Engine>> {
    vec![Arc::new(lodge_translator::Translator)]
}

/// What an engine is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first that works.
    Auto,
    /// The one of this name.
    Named(String),
}

/// An engine, and why it was taken.
#[derive(Clone)]
pub struct Chosen {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// Why, in one line.
    pub why: String,
}

/// No engine can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEngine {
    /// There is none of this name.
    #[error("this build has no engine '{name}'; it has: {have}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        have: String,
    },
    /// It does not work here.
    #[error("the {name} engine cannot be used here: {cause}{}", .remedy.as_ref().map(|r| format!("; {r}")).unwrap_or_default())]
    Unusable {
        /// The engine.
        name: &'static str,
        /// Why not.
        cause: String,
        /// What would mend it.
        remedy: Option<String>,
    },
    /// None works here.
    #[error("no engine can be used on this host: {causes}")]
    None {
        /// Each engine's cause.
        causes: String,
    },
}

/// Chooses among `engines`, which are tried in order.
///
/// # Errors
///
/// The engine named is not there or does not work here, or none does.
pub fn choose(engines: &[Arc<dyn Engine>], choice: &Choice) -> Result<Chosen, NoEngine> {
    if let Choice::Named(name) = choice {
        let Some(engine) = engines.iter().find(|engine| engine.name() == name) else {
            let have: Vec<_> = engines.iter().map(|engine| engine.name()).collect();
            return Err(NoEngine::Unknown { name: name.clone(), have: have.join(", ") });
        };
        return match engine.probe() {
            Verdict::Usable(how) => Ok(Chosen { engine: engine.clone(), why: format!("asked for; {how}") }),
            Verdict::Unusable { cause, remedy } => Err(NoEngine::Unusable { name: engine.name(), cause, remedy }),
        };
    }
    let mut causes = Vec::new();
    for engine in engines {
        match engine.probe() {
            Verdict::Usable(how) => {
                causes.insert(0, how);
                return Ok(Chosen { engine: engine.clone(), why: causes.join("; ") });
            }
            Verdict::Unusable { cause, .. } => causes.push(format!("no {}: {cause}", engine.name())),
        }
    }
    Err(NoEngine::None { causes: causes.join("; ") })
}

#[cfg(test)]
mod tests {
    use lodge_engine_api::{Capabilities, EngineError, Partition, PartitionSpec};

    use super::*;

    struct Fake(&'static str, bool);

    impl Engine for Fake {
        fn name(&self) -> &'static str {
            self.0
        }
        fn probe(&self) -> Verdict {
            if self.1 {
                Verdict::Usable("it works".into())
            } else {
                Verdict::Unusable { cause: "no device".into(), remedy: Some("load the module".into()) }
            }
        }
        fn capabilities(&self) -> Capabilities {
            Capabilities { max_vcpus: 1, physical_address_bits: 40, maps_at_guest_addresses: false }
        }
        fn create(&self, _: PartitionSpec) -> Result<Arc<dyn Partition>, EngineError> {
            Err(EngineError::Internal("a fake".into()))
        }
    }

    fn fakes(kvm: bool, translator: bool) -> Vec<Arc<dyn Engine>> {
        vec![Arc::new(Fake("kvm", kvm)), Arc::new(Fake("translator", translator))]
    }

    #[test]
    fn auto_takes_the_first_that_works_and_says_why() {
        let chosen = choose(&fakes(true, true), &Choice::Auto).ok().unwrap();
        assert_eq!((chosen.engine.name(), chosen.why.as_str()), ("kvm", "it works"));
        let chosen = choose(&fakes(false, true), &Choice::Auto).ok().unwrap();
        assert_eq!((chosen.engine.name(), chosen.why.as_str()), ("translator", "it works; no kvm: no device"));
        let error = choose(&fakes(false, false), &Choice::Auto).err().unwrap();
        assert_eq!(
            error.to_string(),
            "no engine can be used on this host: no kvm: no device; no translator: no device"
        );
    }

    #[test]
    fn a_named_engine_is_that_or_none() {
        let named = |name: &str| Choice::Named(name.into());
        assert_eq!(choose(&fakes(true, true), &named("translator")).ok().unwrap().engine.name(), "translator");
        let error = choose(&fakes(false, true), &named("kvm")).err().unwrap();
        assert_eq!(error.to_string(), "the kvm engine cannot be used here: no device; load the module");
        let error = choose(&fakes(true, true), &named("hvf")).err().unwrap();
        assert_eq!(error.to_string(), "this build has no engine 'hvf'; it has: kvm, translator");
    }
}
