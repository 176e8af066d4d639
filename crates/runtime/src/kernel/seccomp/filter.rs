//! A filter of system calls as rules, and its translation into the classic BPF that the kernel runs (seccomp(2)).

use std::collections::BTreeMap;

use spec::ordered::sort_by_key;

/// What the kernel takes at most (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;
/// `AUDIT_ARCH_*` of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
/// Numbers from here on are of x32, another way to call the same kernel; elsewhere no call has them.
const X32: u32 = 0x4000_0000;
const ENOSYS: u16 = 38;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

// Operations of linux/bpf_common.h.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Rules for each system call, and what becomes of all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) default: Action,
    /// The first rule of a call whose conditions hold decides.
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Number of the system call.
    pub(super) call: u32,
    /// All must hold.
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Log,
    Errno(u16),
    Trace(u16),
    Trap,
    KillThread,
    KillProcess,
}

/// A comparison of all 64 bits of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) operator: Operator,
    pub(super) value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// The argument's bits of `mask` equal the value.
    MaskedEqual {
        mask: u64,
    },
}

/// The rules need more instructions than the kernel takes.
#[derive(Debug, thiserror::Error)]
#[error("the profile needs {0} instructions, the kernel takes {LONGEST}")]
pub(in crate::kernel) struct TooLong(usize);

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

impl Filter {
    /// The program as bytes in the machine's order.
    ///
    /// 1. Another architecture numbers its calls differently: the process ends.
    /// 2. x32, and calls younger than our table where the rest is refused by errno, do not exist (ENOSYS): programs
    ///    then fall back to older calls, while EPERM would make them give up.
    /// 3. A binary search over ranges of numbers with the same action, then the conditions of the call.
    pub(super) fn compile(&self) -> Result<Vec<u8>, TooLong> {
        let mut code = vec![
            load(ARCH),
            branch(JUMP_EQUAL, ARCHITECTURE, 1, 0),
            give(Action::KillProcess),
            load(NUMBER),
            branch(JUMP_GREATER_OR_EQUAL, X32, 0, 1),
            give(Action::Errno(ENOSYS)),
        ];
        code.extend(search(&self.ranges()));
        if code.len() > LONGEST {
            return Err(TooLong(code.len()));
        }
        Ok(code.iter().flat_map(|instruction| instruction.bytes()).collect())
    }

    /// Code for each range of numbers, by the first number; the first begins at 0.
    fn ranges(&self) -> Vec<(u32, Vec<Instruction>)> {
        let mut calls: BTreeMap<u32, Vec<&Rule>> = BTreeMap::new();
        for rule in &self.rules {
            calls.entry(rule.call).or_default().push(rule);
        }
        let beyond = sys::syscalls::LAST_KNOWN + 1;
        let unknown = if matches!(self.default, Action::Errno(_)) { Action::Errno(ENOSYS) } else { self.default };
        let default_at = |number: u32| if number < beyond { self.default } else { unknown };
        let mut starts = vec![(0, vec![give(self.default)]), (beyond, vec![give(unknown)])];
        for (&number, rules) in &calls {
            let next = number.saturating_add(1);
            starts.push((number, decide(rules, default_at(number))));
            if !calls.contains_key(&next) {
                starts.push((next, vec![give(default_at(next))]));
            }
        }
        // Stable: of two that begin at one number the later one, which knows the call, counts.
        sort_by_key(&mut starts, |(number, _)| *number);
        let mut ranges: Vec<(u32, Vec<Instruction>)> = Vec::new();
        for (number, code) in starts {
            match ranges.last_mut() {
                Some((last, there)) if *last == number => *there = code,
                Some((_, there)) if *there == code => {}
                _ => ranges.push((number, code)),
            }
        }
        ranges
    }
}

impl Action {
    /// What the kernel calls a filter return value.
    fn value(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Trace(data) => 0x7ff0_0000 | u32::from(data),
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }
}

impl Instruction {
    fn bytes(self) -> [u8; 8] {
        let [code0, code1] = self.code.to_ne_bytes();
        let [value0, value1, value2, value3] = self.value.to_ne_bytes();
        [code0, code1, self.if_true, self.if_false, value0, value1, value2, value3]
    }
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, if_true: 0, if_false: 0, value: offset }
}

fn branch(code: u16, value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, value }
}

fn give(action: Action) -> Instruction {
    Instruction { code: RETURN, if_true: 0, if_false: 0, value: action.value() }
}

/// Finds the range of the number in the accumulator. Every path ends in a return.
fn search(ranges: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    match (lower, upper) {
        ([], [(_, code)]) => code.clone(),
        (_, []) => Vec::new(),
        (_, [(first, _), ..]) => {
            let (lower, upper) = (search(lower), search(upper));
            let mut code = Vec::with_capacity(lower.len() + upper.len() + 2);
            match u8::try_from(lower.len()) {
                Ok(distance) => code.push(branch(JUMP_GREATER_OR_EQUAL, *first, distance, 0)),
                // Conditional jumps reach 255 instructions, plain ones any distance.
                Err(_far) => {
                    let distance = u32::try_from(lower.len()).unwrap_or(u32::MAX);
                    code.push(branch(JUMP_GREATER_OR_EQUAL, *first, 0, 1));
                    code.push(Instruction { code: JUMP, if_true: 0, if_false: 0, value: distance });
                }
            }
            code.extend(lower);
            code.extend(upper);
            code
        }
    }
}

/// The rules of one call in their order, then the default.
fn decide(rules: &[&Rule], default: Action) -> Vec<Instruction> {
    let mut code = Vec::new();
    for rule in rules {
        let tests: Vec<Test> = rule.conditions.iter().flat_map(|condition| condition.tests()).collect();
        // Where a failing condition goes: behind the return of this rule.
        let end = tests.len() + 1;
        // Where a condition that holds early goes: to the first test of the next one.
        for (at, test) in tests.iter().enumerate() {
            let next = tests.iter().skip(at).take_while(|other| other.condition == test.condition).count();
            let distance = |goal: Goal| match goal {
                Goal::On => 0,
                Goal::Holds => next - 1,
                Goal::Fails => end - at - 1,
            };
            let short = |goal: Goal| u8::try_from(distance(goal)).unwrap_or(u8::MAX);
            let plain = matches!(test.code, LOAD | AND);
            let (if_true, if_false) = if plain { (0, 0) } else { (short(test.if_true), short(test.if_false)) };
            code.push(Instruction { code: test.code, if_true, if_false, value: test.value });
        }
        code.push(give(rule.action));
        if rule.conditions.is_empty() {
            return code;
        }
    }
    code.push(give(default));
    code
}

/// One instruction of a condition, with goals instead of distances.
struct Test {
    /// Which condition of its rule it belongs to.
    condition: Condition,
    code: u16,
    value: u32,
    if_true: Goal,
    if_false: Goal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// The next instruction.
    On,
    /// The next condition.
    Holds,
    /// The next rule.
    Fails,
}

impl Condition {
    /// The machine compares 32 bits: first the upper half, then, if that does not decide, the lower one.
    fn tests(self) -> Vec<Test> {
        use Goal::{Fails, Holds, On};
        let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or_default();
        let halves = |value: u64| (half(value >> 32), half(value));
        let (high, low) = halves(self.value);
        let offset = ARGUMENTS + 8 * u32::from(self.argument);
        // Little-endian: the lower half comes first.
        let (load_high, load_low) = (self.step(LOAD, offset + 4), self.step(LOAD, offset));
        let test = |code, value, if_true, if_false| Test { condition: self, code, value, if_true, if_false };
        let ordered = |code: u16, yes: Goal, no: Goal| {
            vec![
                self.step(LOAD, offset + 4),
                test(JUMP_GREATER, high, yes, On),
                test(JUMP_EQUAL, high, On, no),
                self.step(LOAD, offset),
                test(code, low, yes, no),
            ]
        };
        match self.operator {
            Operator::Equal => {
                vec![load_high, test(JUMP_EQUAL, high, On, Fails), load_low, test(JUMP_EQUAL, low, Holds, Fails)]
            }
            Operator::NotEqual => {
                vec![load_high, test(JUMP_EQUAL, high, On, Holds), load_low, test(JUMP_EQUAL, low, Fails, Holds)]
            }
            Operator::Greater => ordered(JUMP_GREATER, Holds, Fails),
            Operator::GreaterOrEqual => ordered(JUMP_GREATER_OR_EQUAL, Holds, Fails),
            Operator::Less => ordered(JUMP_GREATER_OR_EQUAL, Fails, Holds),
            Operator::LessOrEqual => ordered(JUMP_GREATER, Fails, Holds),
            Operator::MaskedEqual { mask } => {
                let (mask_high, mask_low) = halves(mask);
                vec![
                    load_high,
                    self.step(AND, mask_high),
                    test(JUMP_EQUAL, high, On, Fails),
                    load_low,
                    self.step(AND, mask_low),
                    test(JUMP_EQUAL, low, Holds, Fails),
                ]
            }
        }
    }

    fn step(self, code: u16, value: u32) -> Test {
        Test { condition: self, code, value, if_true: Goal::On, if_false: Goal::On }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    type Holds = fn(u64, u64) -> bool;

    /// Runs a program as the kernel does; gives the return value.
    pub(in super::super) fn run(program: &[u8], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCH => architecture,
            _ => {
                let value = arguments[(offset - ARGUMENTS) as usize / 8];
                let value = if (offset - ARGUMENTS).is_multiple_of(8) { value } else { value >> 32 };
                u32::try_from(value & 0xffff_ffff).unwrap()
            }
        };
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let bytes = &program[at * 8..at * 8 + 8];
            let value = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
            let jump = |holds: bool| usize::from(bytes[if holds { 2 } else { 3 }]);
            at += 1;
            match u16::from_ne_bytes(bytes[..2].try_into().unwrap()) {
                LOAD => accumulator = word(value),
                AND => accumulator &= value,
                JUMP => at += value as usize,
                JUMP_EQUAL => at += jump(accumulator == value),
                JUMP_GREATER => at += jump(accumulator > value),
                JUMP_GREATER_OR_EQUAL => at += jump(accumulator >= value),
                RETURN => return value,
                other => panic!("unknown operation {other:#x}"),
            }
        }
    }

    fn native(filter: &Filter, number: u32, arguments: [u64; 6]) -> u32 {
        run(&filter.compile().unwrap(), ARCHITECTURE, number, arguments)
    }

    #[test]
    fn each_operator_compares_all_64_bits() {
        let values = [0, 1, 7, 8, 9, 0xffff_ffff, 1 << 32, (1 << 32) + 8, (8 << 32) + 7, u64::MAX];
        let operators: [(Operator, Holds); 7] = [
            (Operator::NotEqual, |argument, value| argument != value),
            (Operator::Less, |argument, value| argument < value),
            (Operator::LessOrEqual, |argument, value| argument <= value),
            (Operator::Equal, |argument, value| argument == value),
            (Operator::GreaterOrEqual, |argument, value| argument >= value),
            (Operator::Greater, |argument, value| argument > value),
            (Operator::MaskedEqual { mask: 0x1_0000_000f }, |argument, value| argument & 0x1_0000_000f == value),
        ];
        for (operator, holds) in operators {
            for (value, argument) in values.iter().flat_map(|value| values.iter().map(move |other| (*value, *other))) {
                let conditions = vec![Condition { argument: 3, operator, value }];
                let rule = Rule { call: 5, conditions, action: Action::Allow };
                let filter = Filter { default: Action::Trap, rules: vec![rule] };
                let expected = if holds(argument, value) { Action::Allow } else { Action::Trap };
                let given = native(&filter, 5, [0, 0, 0, argument, 0, 0]);
                assert_eq!(given, expected.value(), "{argument:#x} {operator:?} {value:#x}");
            }
        }
    }

    #[test]
    fn all_conditions_of_a_rule_hold_and_the_first_rule_wins() {
        let at = |argument, operator, value| Condition { argument, operator, value };
        let rules = vec![
            Rule {
                call: 9,
                conditions: vec![at(0, Operator::NotEqual, 1), at(1, Operator::Greater, 10), at(2, Operator::Equal, 3)],
                action: Action::Allow,
            },
            Rule { call: 9, conditions: vec![at(0, Operator::Equal, 2)], action: Action::Errno(13) },
            Rule { call: 9, conditions: Vec::new(), action: Action::Log },
            Rule { call: 9, conditions: Vec::new(), action: Action::KillThread },
        ];
        let filter = Filter { default: Action::KillProcess, rules };
        for (arguments, expected) in [
            ([0, 11, 3], Action::Allow),
            ([2, 11, 3], Action::Allow),
            ([1, 11, 3], Action::Log),
            ([0, 10, 3], Action::Log),
            ([2, 11, 4], Action::Errno(13)),
        ] {
            let [first, second, third] = arguments;
            assert_eq!(native(&filter, 9, [first, second, third, 0, 0, 0]), expected.value(), "{arguments:?}");
        }
        assert_eq!(native(&filter, 8, [0; 6]), Action::KillProcess.value());
        assert_eq!(native(&filter, 10, [0; 6]), Action::KillProcess.value());
    }

    #[test]
    fn every_number_finds_its_action() {
        // Enough alternation for jumps beyond 255 instructions.
        let action = |number: u32| if number.is_multiple_of(3) { Action::Allow } else { Action::Errno(7) };
        let rules = (0..440).map(|call| Rule { call, conditions: Vec::new(), action: action(call) }).collect();
        let filter = Filter { default: Action::Errno(1), rules };
        for number in 0..440 {
            assert_eq!(native(&filter, number, [0; 6]), action(number).value(), "{number}");
        }
        assert_eq!(native(&filter, 440, [0; 6]), Action::Errno(1).value());
        assert_eq!(native(&filter, sys::syscalls::LAST_KNOWN, [0; 6]), Action::Errno(1).value());
        for unknown in [sys::syscalls::LAST_KNOWN + 1, 0x3fff_ffff, X32, X32 + 1, u32::MAX] {
            assert_eq!(native(&filter, unknown, [0; 6]), Action::Errno(ENOSYS).value(), "{unknown:#x}");
        }
        assert_eq!(run(&filter.compile().unwrap(), 0x4000_0003, 0, [0; 6]), Action::KillProcess.value());
    }
}
