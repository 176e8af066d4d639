//! Profiles of `type: Localhost`: JSON as the OCI runtime specification ("Seccomp") and Docker write it.

use rustix::thread::CapabilitySet;
use serde::Deserialize;

use super::filter::{Action, Condition, Filter, Operator, Rule};

/// `AUDIT_ARCH` names of this machine's own architecture.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: (&str, &str) = ("SCMP_ARCH_X86_64", "amd64");
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: (&str, &str) = ("SCMP_ARCH_AARCH64", "arm64");
const EPERM: u16 = 1;

/// Why a profile cannot be honoured.
#[derive(Debug, thiserror::Error)]
pub(in crate::kernel) enum ProfileError {
    #[error("it is not a seccomp profile")]
    NotJson(#[from] serde_json::Error),
    #[error("action {0:?} is not supported")]
    Action(String),
    #[error("operator {0:?} is unknown")]
    Operator(String),
    #[error("{0} has arguments 0 to 5, not {1}")]
    Argument(String, u32),
    #[error("flag {0:?} is not supported")]
    Flag(String),
    #[error("listenerPath is not supported")]
    Listener,
    #[error("capability {0:?} is unknown")]
    Capability(String),
    #[error("it is not made for {own}", own = ARCHITECTURES.0)]
    Architecture,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<ArchitectureEntry>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct ArchitectureEntry {
    architecture: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Scope,
    #[serde(default)]
    excludes: Scope,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// When an entry counts (Docker's extension).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scope {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Reads a profile for a container with these capabilities. Calls of other architectures and names that this one does
/// not have are passed over, as libseccomp does.
pub(super) fn parse(text: &[u8], capabilities: u64) -> Result<Filter, ProfileError> {
    let profile: Profile = serde_json::from_slice(text)?;
    if !profile.listener_path.is_empty() {
        return Err(ProfileError::Listener);
    }
    // One thread loads the filter, so there are none to synchronise.
    if let Some(flag) = profile.flags.iter().find(|flag| *flag != "SECCOMP_FILTER_FLAG_TSYNC") {
        return Err(ProfileError::Flag(flag.clone()));
    }
    let named = profile.arch_map.iter().map(|entry| &entry.architecture).chain(&profile.architectures);
    let mut named = named.peekable();
    if named.peek().is_some() && !named.any(|architecture| architecture == ARCHITECTURES.0) {
        return Err(ProfileError::Architecture);
    }
    let capabilities = CapabilitySet::from_bits_retain(capabilities);
    let mut rules = Vec::new();
    for entry in &profile.syscalls {
        if entry.applies(capabilities)? {
            entry.add_rules(&mut rules)?;
        }
    }
    Ok(Filter { default: action(&profile.default_action, profile.default_errno_ret)?, rules })
}

impl Entry {
    fn applies(&self, capabilities: CapabilitySet) -> Result<bool, ProfileError> {
        let has = |name: &String| {
            let plain = name.strip_prefix("CAP_").unwrap_or(name);
            let known = CapabilitySet::from_name(plain).ok_or_else(|| ProfileError::Capability(name.clone()))?;
            Ok::<_, ProfileError>(capabilities.contains(known))
        };
        for name in &self.includes.caps {
            if !has(name)? {
                return Ok(false);
            }
        }
        for name in &self.excludes.caps {
            if has(name)? {
                return Ok(false);
            }
        }
        let here = |arches: &[String]| arches.iter().any(|name| name == ARCHITECTURES.1);
        let included = self.includes.arches.is_empty() || here(&self.includes.arches);
        // Kernels older than any that a profile names (Docker's says 4.8) are not supported at all.
        let too_new = self.excludes.min_kernel.is_some();
        Ok(included && !here(&self.excludes.arches) && !too_new)
    }

    /// Several conditions on one argument are alternatives, on different ones all must hold: what runc does.
    fn add_rules(&self, rules: &mut Vec<Rule>) -> Result<(), ProfileError> {
        let action = action(&self.action, self.errno_ret)?;
        let own = Some(&self.name).filter(|name| !name.is_empty());
        for name in self.names.iter().chain(own) {
            let conditions = self.args.iter().flatten().map(|argument| argument.condition(name));
            let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
            let Some(call) = sys::syscalls::number(name) else { continue };
            let mut arguments: Vec<u8> = conditions.iter().map(|condition| condition.argument).collect();
            arguments.sort_unstable();
            arguments.dedup();
            if arguments.len() < conditions.len() {
                rules.extend(conditions.into_iter().map(|one| Rule { call, conditions: vec![one], action }));
            } else {
                rules.push(Rule { call, conditions, action });
            }
        }
        Ok(())
    }
}

impl Argument {
    fn condition(&self, call: &str) -> Result<Condition, ProfileError> {
        let argument = u8::try_from(self.index).ok().filter(|index| *index < 6);
        let argument = argument.ok_or_else(|| ProfileError::Argument(call.to_owned(), self.index))?;
        let (operator, value) = match self.op.as_str() {
            "SCMP_CMP_NE" => (Operator::NotEqual, self.value),
            "SCMP_CMP_LT" => (Operator::Less, self.value),
            "SCMP_CMP_LE" => (Operator::LessOrEqual, self.value),
            "SCMP_CMP_EQ" => (Operator::Equal, self.value),
            "SCMP_CMP_GE" => (Operator::GreaterOrEqual, self.value),
            "SCMP_CMP_GT" => (Operator::Greater, self.value),
            "SCMP_CMP_MASKED_EQ" => (Operator::MaskedEqual { mask: self.value }, self.value_two),
            other => return Err(ProfileError::Operator(other.to_owned())),
        };
        Ok(Condition { argument, operator, value })
    }
}

fn action(name: &str, errno: Option<u16>) -> Result<Action, ProfileError> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(EPERM)),
        "SCMP_ACT_TRACE" => Action::Trace(errno.unwrap_or(EPERM)),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        other => return Err(ProfileError::Action(other.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYS_ADMIN: u64 = 1 << 21;

    fn rules(text: &str, capabilities: u64) -> Vec<Rule> {
        parse(text.as_bytes(), capabilities).unwrap().rules
    }

    #[test]
    fn both_forms_are_read() {
        let text = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []}],
            "syscalls": [
                {"names": ["read", "chown32"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}},
                {"name": "clone", "action": "SCMP_ACT_ALLOW", "args":
                    [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
                    "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390"]}},
                {"names": ["mount"], "action": "SCMP_ACT_LOG", "args": null, "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}}]}"#;
        let number = |name| sys::syscalls::number(name).unwrap();
        let calls = |capabilities| rules(text, capabilities).iter().map(|rule| rule.call).collect::<Vec<_>>();
        assert_eq!(calls(0), [number("read"), number("clone"), number("ptrace")]);
        assert_eq!(calls(SYS_ADMIN), [number("read"), number("mount"), number("ptrace")]);
        assert_eq!(parse(text.as_bytes(), 0).unwrap().default, Action::Errno(38));
        assert_eq!(rules(text, 0)[1].conditions[0].operator, Operator::MaskedEqual { mask: 0x7e02_0000 });
    }

    #[test]
    fn conditions_on_one_argument_are_alternatives() {
        let text = r#"{"defaultAction": "SCMP_ACT_KILL", "syscalls": [
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args":
                [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args":
                [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#;
        let lengths: Vec<usize> = rules(text, 0).iter().map(|rule| rule.conditions.len()).collect();
        assert_eq!(lengths, [1, 1, 2]);
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (text, message) in [
            ("{}", "it is not a seccomp profile"),
            ("[", "it is not a seccomp profile"),
            (r#"{"defaultAction": "ALLOW"}"#, "action \"ALLOW\" is not supported"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}"#,
                "action \"SCMP_ACT_NOTIFY\" is not supported",
            ),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#, "listenerPath is not supported"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}"#,
                "flag \"SECCOMP_FILTER_FLAG_LOG\" is not supported",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
                "read has arguments 0 to 5, not 6",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 0, "op": "="}]}]}"#,
                "operator \"=\" is unknown",
            ),
        ] {
            assert_eq!(parse(text.as_bytes(), 0).unwrap_err().to_string(), message, "{text}");
        }
        let foreign = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"]}"#;
        assert!(matches!(parse(foreign.as_bytes(), 0), Err(ProfileError::Architecture)));
    }
}
