//! Which devices a container may open: the OCI default list, enforced by cgroup, since making device nodes is a default
//! capability.
//!
//! On cgroup v1 by the `devices` controller (devices.rst); elsewhere by a program attached to the container's v2
//! directory (cgroup-v2.rst, "Device controller"), in bytecode of our own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use sys::bpf::{Instruction, attach_device_program, load_cgroup_device_program};

/// Character devices by major and minor number, as in the OCI runtime specification ("Default Devices"): null, zero,
/// full, random, urandom; tty, console, ptmx; and every pseudo-terminal.
const ALLOWED: [(i32, Option<i32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// What to write into a v1 directory, in order: file, value.
pub(super) fn v1_rules() -> Vec<(&'static str, String)> {
    let mut rules = vec![("devices.deny", "a".to_owned())];
    // Any node may be made: whoever can open it is another question.
    rules.extend(["c *:* m", "b *:* m"].map(|rule| ("devices.allow", rule.to_owned())));
    rules.extend(ALLOWED.map(|(major, minor)| {
        let minor = minor.map_or("*".to_owned(), |minor| minor.to_string());
        ("devices.allow", format!("c {major}:{minor} rwm"))
    }));
    rules
}

/// The program of this daemon for v2, loaded when the first container needs it.
#[derive(Debug, Default)]
pub(super) struct DeviceProgram(OnceLock<io::Result<OwnedFd>>);

impl DeviceProgram {
    /// Refuses all but the default list to what runs in `cgroup` and below. A kernel that has no such programs is
    /// warned about once: `monopod check` names the remedy, and Pods run.
    pub(super) fn enforce(&self, cgroup: impl AsFd) -> io::Result<()> {
        let loaded = self.0.get_or_init(|| {
            let loaded = load_cgroup_device_program(&program());
            if let Err(error) = &loaded {
                tracing::warn!(%error, "the kernel takes no device programs: containers can open every device node that they make");
            }
            loaded
        });
        loaded.as_ref().map_or(Ok(()), |program| attach_device_program(cgroup, program))
    }
}

/// Tries whether the kernel takes the program, for `monopod check`.
pub fn try_device_program() -> io::Result<()> {
    load_cgroup_device_program(&program()).map(drop)
}

// Operations of eBPF (instruction-set.rst), with an immediate operand where there is a choice.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_IF_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

// Registers: the result, the context, and what is taken from it.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `BPF_DEVCG_ACC_MKNOD` and `BPF_DEVCG_DEV_CHAR` of linux/bpf.h.
const MAKE_NODE: i32 = 1;
const CHARACTER: i32 = 2;

/// The context is `struct bpf_cgroup_dev_ctx`: access in the upper and kind in the lower half of the first word, then
/// major and minor number. The result 1 allows.
fn program() -> Vec<Instruction> {
    let mut code = vec![
        instruction(LOAD_WORD, KIND | CONTEXT << 4, 0, 0),
        instruction(MOVE_REGISTER, ACCESS | KIND << 4, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 16),
        instruction(AND, KIND, 0, 0xffff),
        instruction(LOAD_WORD, MAJOR | CONTEXT << 4, 4, 0),
        instruction(LOAD_WORD, MINOR | CONTEXT << 4, 8, 0),
        instruction(MOVE, RESULT, 0, 1),
        instruction(JUMP_IF_NOT_EQUAL, ACCESS, 1, MAKE_NODE),
        instruction(EXIT, 0, 0, 0),
        instruction(JUMP_IF_EQUAL, KIND, 2, CHARACTER),
        instruction(MOVE, RESULT, 0, 0),
        instruction(EXIT, 0, 0, 0),
    ];
    for (major, minor) in ALLOWED {
        // To the next device, over the rest of this one.
        match minor {
            Some(minor) => code.extend([
                instruction(JUMP_IF_NOT_EQUAL, MAJOR, 2, major),
                instruction(JUMP_IF_NOT_EQUAL, MINOR, 1, minor),
            ]),
            None => code.push(instruction(JUMP_IF_NOT_EQUAL, MAJOR, 1, major)),
        }
        code.push(instruction(EXIT, 0, 0, 0));
    }
    code.extend([instruction(MOVE, RESULT, 0, 0), instruction(EXIT, 0, 0, 0)]);
    code
}

fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel does.
    fn allows(access: i32, kind: i32, major: i32, minor: i32) -> bool {
        let (code, context) = (program(), [access << 16 | kind, major, minor]);
        let (mut registers, mut at) = ([0; 16], 0);
        loop {
            let Instruction { code, registers: both, offset, immediate } = code[at];
            let (target, source) = (usize::from(both & 15), usize::from(both >> 4));
            at += 1;
            let taken = match code {
                LOAD_WORD => {
                    registers[target] = context[usize::try_from(offset).unwrap() / 4];
                    false
                }
                MOVE => {
                    registers[target] = immediate;
                    false
                }
                MOVE_REGISTER => {
                    registers[target] = registers[source];
                    false
                }
                AND => {
                    registers[target] &= immediate;
                    false
                }
                SHIFT_RIGHT => {
                    registers[target] >>= immediate;
                    false
                }
                JUMP_IF_EQUAL => registers[target] == immediate,
                JUMP_IF_NOT_EQUAL => registers[target] != immediate,
                EXIT => return registers[0] == 1,
                other => panic!("unknown operation {other:#x}"),
            };
            if taken {
                at += usize::try_from(offset).unwrap();
            }
        }
    }

    #[test]
    fn the_program_allows_the_default_list_and_making_nodes() {
        let (read, write, block) = (2, 4, 1);
        for (access, kind, major, minor, expected) in [
            (read, CHARACTER, 1, 3, true),
            (read | write, CHARACTER, 1, 9, true),
            (read | write, CHARACTER, 5, 2, true),
            (read | write | MAKE_NODE, CHARACTER, 136, 77, true),
            (MAKE_NODE, block, 8, 0, true),
            (MAKE_NODE, CHARACTER, 1, 1, true),
            (read, CHARACTER, 1, 1, false),
            (read, CHARACTER, 1, 11, false),
            (read | MAKE_NODE, block, 8, 0, false),
            (write, block, 1, 3, false),
            (read, CHARACTER, 10, 229, false),
        ] {
            assert_eq!(allows(access, kind, major, minor), expected, "{access} {kind} {major}:{minor}");
        }
    }
}
