//! The machine's user ids that Pods with `hostUsers: false` get.

use super::Finding;
use super::machine::Machine;

/// Looks at who else may use them.
pub fn look(machine: &Machine) -> Vec<Finding> {
    let (first, count) = match runtime::subordinate_ids() {
        Ok(range) => range,
        Err(error) => {
            let remedy = "edit /etc/subuid and /etc/subgid, for example `monopod:1879048192:268435456` in both";
            return vec![Finding::fail(format!("no ids for Pods with hostUsers: false: {error}"), remedy)];
        }
    };
    let last = first.saturating_add(count).saturating_sub(1);
    let others: Vec<_> = ["/etc/subuid", "/etc/subgid"]
        .iter()
        .filter_map(|file| Some((file, overlapping(&machine.text(file), first, last)?)))
        .collect();
    let overlap = |(file, line): (&&str, String)| {
        Finding::warn(
            format!("{file} gives ids of Pods with hostUsers: false to another user, too: {line}"),
            "give the user `monopod` a range of its own in /etc/subuid and /etc/subgid: `monopod:FIRST:COUNT`",
        )
    };
    if others.is_empty() {
        return vec![Finding::ok(format!("Pods with hostUsers: false get the ids {first} to {last}"))];
    }
    others.into_iter().map(overlap).collect()
}

/// The first entry of somebody else that shares ids with the range (subuid(5)).
fn overlapping(text: &str, first: u32, last: u32) -> Option<String> {
    let shares = |line: &&str| {
        let mut fields = line.split(':');
        let owner = fields.next().unwrap_or_default();
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok());
        let (Some(start), Some(count)) = (number(fields.next()), number(fields.next())) else { return false };
        owner != "monopod" && count > 0 && start <= u64::from(last) && start + count > u64::from(first)
    };
    text.lines().find(shares).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_others_in_the_range_are_named() {
        let (first, last) = (0x7000_0000, 0x7fff_ffff);
        let text = "alice:100000:65536\nmonopod:1879048192:65536\nbob:1879000000:100000\nkubelet:2147483648:65536\n";
        assert_eq!(overlapping(text, first, last).as_deref(), Some("bob:1879000000:100000"));
        assert_eq!(overlapping("alice:100000:65536\nnonsense\n", first, last), None);
        assert_eq!(overlapping("eve:2147483647:1\n", first, last).as_deref(), Some("eve:2147483647:1"));
    }
}
