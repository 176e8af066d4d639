//! `$(VAR)` references in commands, arguments and the values of environment variables.

/// Replaces each `$(NAME)` by what `lookup` knows; one that it does not know stays as it is written.
///
/// `$$` is a literal `$`, so `$$(NAME)` yields `$(NAME)`. Any other `$` stays. What is put in is not expanded again.
/// Source: API reference, `Container.command`.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from_dollar) = rest.split_at(at);
        expanded.push_str(before);
        let after = from_dollar.strip_prefix('$').unwrap_or(from_dollar);
        rest = if let Some(after_escape) = after.strip_prefix('$') {
            expanded.push('$');
            after_escape
        } else if let Some((name, after_reference)) = after.strip_prefix('(').and_then(|r| r.split_once(')')) {
            if let Some(value) = lookup(name) {
                expanded.push_str(&value);
            } else {
                expanded.extend(["$(", name, ")"]);
            }
            after_reference
        } else if let Some(after_open) = after.strip_prefix('(') {
            // Never closed: both characters are literal.
            expanded.push_str("$(");
            after_open
        } else {
            expanded.push('$');
            after
        };
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_and_all_else_stays() {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "B" => Some("$(A)".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let table = [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(A)z", "x1y1z"),
            ("$(B)", "$(A)"),
            ("[$(EMPTY)]", "[]"),
            ("$(NO)", "$(NO)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$A", "$A"),
            ("${A}", "${A}"),
            ("$", "$"),
            ("$$", "$"),
            ("a$", "a$"),
            ("$(", "$("),
            ("$(A", "$(A"),
            ("$(A$(A)", "$(A$(A)"),
            ("$()", "$()"),
            ("é$(A)é", "é1é"),
        ];
        for (text, expected) in table {
            assert_eq!(expand(text, &lookup), expected, "{text}");
        }
    }
}
