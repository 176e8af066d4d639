//! Sandboxes that the daemon has made ahead. They are nobody's, come and go as it sees fit, and tests look past them.

use crate::namespaces::NodeProcess;

/// A daemon with nothing to do keeps so many.
pub const LEAST: usize = 2;
/// More there must never be.
pub const MOST: usize = 16;
/// What the daemon holds of each: its socket and two pidfds, of a child and as the process said it itself.
pub const DESCRIPTORS_EACH: usize = 3;

/// The sandboxes that are nobody's.
#[derive(Debug)]
pub struct Spares {
    ids: Vec<String>,
}

impl Spares {
    /// Those among these processes.
    pub fn among(processes: &[NodeProcess]) -> Self {
        Self { ids: processes.iter().filter_map(|process| id_of(&process.command_line)).collect() }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// Whether this names one of them: its id, or the host's end of its link, which has the first digits of it.
    pub fn has(&self, line: &str) -> bool {
        self.ids.iter().any(|id| line.contains(id.as_str()) || line.contains(&format!("mp{}", &id[..12])))
    }
}

/// Whether this is the command line of an infra process without a Pod, or of its child that is to become a container.
pub fn is_spare(command_line: &str) -> bool {
    id_of(command_line).is_some() || command_line.contains("infra (container) ")
}

fn id_of(command_line: &str) -> Option<String> {
    let (_, id) = command_line.split_once("infra (spare) ")?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_known_by_what_ps_shows() {
        let process = |command_line: &str| NodeProcess { pid: 2, parent: 1, command_line: command_line.to_owned() };
        let id = "0123456789abcdef0123456789abcdef";
        let spares = Spares::among(&[process(&format!("monopod infra (spare) {id}   ")), process("monopod infra a/b")]);
        assert_eq!(spares.count(), 1);
        assert!(
            spares.has(&format!("file: /run/sandboxes/{id}.sock")) && spares.has("ip -o link: 7: mp0123456789ab@if2")
        );
        assert!(!spares.has("ip -o link: 8: mp00000000000a@if2"));
    }
}
