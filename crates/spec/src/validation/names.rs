//! The forms that names, labels, keys and paths must have, with the sentences that say so.
//!
//! Sources: `k8s.io/apimachinery/pkg/util/validation` for the sentences; RFC 1123 and RFC 6335 for the forms. Each
//! function returns what is wrong, and nothing for a good text.

use std::net::IpAddr;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// One part of a DNS name: container, volume and Namespace names, host names.
pub fn dns_label(text: &str) -> Vec<String> {
    let mut faults = longer_than(text, 63, "characters");
    if !is_label(text) {
        faults.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            let rule = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                        start and end with an alphanumeric character";
            regex_fault(rule, LABEL, &["my-name", "123-abc"])
        });
    }
    faults
}

/// A DNS name: names of Pods, `ConfigMaps`, Secrets and nodes.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut faults = longer_than(text, 253, "characters");
    if !is_subdomain(text) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                    must start and end with an alphanumeric character";
        faults.push(regex_fault(rule, SUBDOMAIN, &["example.com"]));
    }
    faults
}

/// A name of the DNS search list, where each part may also have underscores.
pub(super) fn dns_search_name(text: &str) -> Vec<String> {
    let mut faults = longer_than(text, 253, "characters");
    let is_part = |part: &str| {
        is_bounded(part.strip_prefix('_').unwrap_or(part), is_lower_or_digit, |b| {
            is_lower_or_digit(b) || b == b'-' || b == b'_'
        })
    };
    if !text.split('.').all(is_part) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', \
                    and must start and end with an alphanumeric character";
        let form = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
        faults.push(regex_fault(rule, form, &["example.com"]));
    }
    faults
}

/// What can stand between two slashes of a path: names of Roles and their bindings.
pub(super) fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].into_iter().filter(|part| text.contains(part)).map(|part| format!("may not contain '{part}'")).collect()
}

/// A label key, also of annotations: `name` or `example.com/name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    let rule = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let explained = |what: &str| regex_fault(&format!("{what} {rule}"), QUALIFIED, &["MyName", "my.name", "123-abc"]);
    let mut faults = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".to_owned());
            } else {
                faults.extend(dns_subdomain(prefix).into_iter().map(|fault| format!("prefix part {fault}")));
            }
            *name
        }
        _ => {
            let example = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![explained("a valid label key") + example];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        faults.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_qualified(name) {
        faults.push(explained("name part"));
    }
    faults
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let mut faults = longer_than(text, 63, "bytes");
    if !text.is_empty() && !is_qualified(text) {
        let rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
                    must start and end with an alphanumeric character";
        let form = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
        faults.push(regex_fault(rule, form, &["MyValue", "my_value", "12345"]));
    }
    faults
}

/// A key of a `ConfigMap` or Secret; it becomes a file name.
pub fn config_key(text: &str) -> Vec<String> {
    let mut faults = longer_than(text, 253, "characters");
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        faults.push(regex_fault(rule, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    faults.extend(
        match text {
            "." => Some("must not be '.'"),
            ".." => Some("must not be '..'"),
            _ if text.starts_with("..") => Some("must not start with '..'"),
            _ => None,
        }
        .map(str::to_owned),
    );
    faults
}

/// The name of an environment variable: any printable ASCII but `=` (KEP-4369).
pub fn environment_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// The name of a port (RFC 6335, section 5.1).
pub(super) fn port_name(text: &str) -> Vec<String> {
    let mut faults = longer_than(text, 15, "characters");
    let mut add = |is_wrong: bool, fault: &str| {
        if is_wrong {
            faults.push(fault.to_owned());
        }
    };
    add(
        text.is_empty() || !text.bytes().all(|b| is_lower_or_digit(b) || b == b'-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    add(!text.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    add(text.contains("--"), "must not contain consecutive hyphens");
    add(text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen");
    faults
}

/// The number of a port.
pub(super) fn port_number(port: i64) -> Vec<String> {
    between(port, 1, 65535)
}

/// The name of an HTTP header.
pub(super) fn http_header_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let rule = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_fault(rule, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// A number of a user or group.
pub(super) fn user_or_group_id(id: i64) -> Vec<String> {
    between(id, 0, i64::from(i32::MAX))
}

/// A number within bounds, both inclusive.
pub(super) fn between(number: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&number) {
        return Vec::new();
    }
    vec![format!("must be between {low} and {high}, inclusive")]
}

/// An address as people write it: without leading zeros, not IPv4 inside IPv6.
pub(super) fn ip_address(text: &str) -> Vec<String> {
    if text.parse::<IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
}

/// A network as people write it: `10.9.8.0/24`, with nothing behind its prefix.
pub(super) fn cidr(text: &str) -> Vec<String> {
    let plain = |number: &str| match number.trim_start_matches('0') {
        "" if !number.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let (address, length) = text.split_once('/').unwrap_or_default();
    let has_colons = address.contains(':');
    let plain_address =
        if has_colons { address.to_owned() } else { address.split('.').map(plain).collect::<Vec<_>>().join(".") };
    let number = plain(length).parse::<u32>().ok().filter(|_| length.bytes().all(|b| b.is_ascii_digit()));
    let (bits, width, is_mapped) = match plain_address.parse() {
        Ok(IpAddr::V4(address)) => (u128::from(address.to_bits()) << 96, 32, false),
        Ok(IpAddr::V6(address)) => (address.to_bits(), 128, address.to_ipv4_mapped().is_some()),
        Err(_invalid) => (0, 0, false),
    };
    let fault = match number.filter(|number| width > 0 && *number <= width) {
        None => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        Some(_) if plain_address != address || plain(length) != length => {
            "must not have leading 0s in IP or prefix length"
        }
        Some(_) if is_mapped => "must not have an IPv4-mapped IPv6 address",
        Some(number) if bits.checked_shl(number).unwrap_or(0) != 0 => "must not have bits set beyond the prefix length",
        Some(_) => return Vec::new(),
    };
    vec![fault.to_owned()]
}

/// A path below a directory.
pub(super) fn descending_path(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.starts_with('/') {
        faults.push("must be a relative path".to_owned());
    }
    faults.extend(no_backsteps(text));
    faults
}

/// A path without `..` as one of its parts.
pub(super) fn no_backsteps(text: &str) -> Vec<String> {
    if text.split('/').any(|part| part == "..") { vec!["must not contain '..'".to_owned()] } else { Vec::new() }
}

fn is_label(text: &str) -> bool {
    is_bounded(text, is_lower_or_digit, |b| is_lower_or_digit(b) || b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_qualified(text: &str) -> bool {
    is_bounded(text, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Not empty, with `edge` characters at both ends and `inner` ones between.
fn is_bounded(text: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(|b| edge(*b));
    is_edge(text.as_bytes().first()) && is_edge(text.as_bytes().last()) && text.bytes().all(inner)
}

fn is_lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn longer_than(text: &str, max: usize, unit: &str) -> Vec<String> {
    if text.len() > max { vec![format!("must be no more than {max} {unit}")] } else { Vec::new() }
}

fn regex_fault(rule: &str, form: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{rule} (e.g. {}regex used for validation is '{form}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rule = fn(&str) -> Vec<String>;

    #[test]
    fn good_texts_have_no_fault_and_others_do() {
        let long = |n: usize| "a".repeat(n);
        let (l15, l16, l63, l64, l253, l254) = (long(15), long(16), long(63), long(64), long(253), long(254));
        let table: [(&str, Rule, Vec<&str>, Vec<&str>); 10] = [
            ("label", dns_label, vec!["a", "a-b", "0", &l63], vec!["", "A", "-a", "a-", "a.b", "a_b", "é", &l64]),
            (
                "subdomain",
                dns_subdomain,
                vec!["a", "a.b-c.0", &l253],
                vec!["", ".", "a.", ".a", "a..b", "A.b", "a.-b", &l254],
            ),
            ("search", dns_search_name, vec!["a.b", "_tcp.a", "a_b"], vec!["", "a.", "a_", "A"]),
            (
                "key",
                qualified_name,
                vec!["a", "A_b.c", "x.y/z", &l63],
                vec!["", "/a", "a/", "a/b/c", "-a", "X/a", &l64],
            ),
            ("value", label_value, vec!["", "a", "A_b-c.d", &l63], vec!["-a", "a ", "a/b", &l64]),
            ("config key", config_key, vec!["a", ".a", "-", "A_b", &l253], vec!["", ".", "..", "..a", "a/b", &l254]),
            ("environment", environment_name, vec!["A", "a.b-c", "1", "a b"], vec!["", "a=b", "é", "a\n"]),
            ("port", port_name, vec!["http", "a-1", &l15], vec!["", "-a", "a-", "a--b", "123", "Http", &l16]),
            (
                "network",
                cidr,
                vec!["10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "192.0.2.1/32", "::1/128"],
                vec!["", "10.0.0.0", "10.0.0.0/", "/8", "10.0.0.0/33", "10.0.0.0/+8", "::/129", "::1/127", "10.0/8"],
            ),
            ("header", http_header_name, vec!["X-A", "a"], vec!["", "a b", "a:"]),
        ];
        for (what, rule, good, bad) in table {
            for text in good {
                assert_eq!(rule(text), Vec::<String>::new(), "{what} {text:?}");
            }
            for text in bad {
                assert!(!rule(text).is_empty(), "{what} {text:?}");
            }
        }
    }

    #[test]
    fn faults_are_kubernetes_sentences() {
        let table: [(Vec<String>, &str); 11] = [
            (
                dns_label("A"),
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
                 end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
            (dns_label("a.b"), "must not contain dots"),
            (
                dns_subdomain("A"),
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
                 start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
            (
                qualified_name("a b"),
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                 alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
            (dns_label(&"a".repeat(64)), "must be no more than 63 characters"),
            (cidr("10.0.0.0/x"), "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            (cidr("010.0.0.0/8"), "must not have leading 0s in IP or prefix length"),
            (cidr("10.0.0.0/08"), "must not have leading 0s in IP or prefix length"),
            (cidr("::ffff:10.0.0.0/104"), "must not have an IPv4-mapped IPv6 address"),
            (cidr("2001:db8::1/32"), "must not have bits set beyond the prefix length"),
            (port_number(70000), "must be between 1 and 65535, inclusive"),
        ];
        for (faults, sentence) in table {
            assert_eq!(faults, [sentence]);
        }
    }
}
