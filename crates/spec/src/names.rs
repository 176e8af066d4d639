//! Names that the server makes up.

/// Letters that form no words and are not mistaken for one another, as Kubernetes uses them.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const RANDOM_LETTERS: usize = 5;
/// A name made from a prefix is also a DNS label.
const MAX_PREFIX: usize = 63 - RANDOM_LETTERS;

/// A name for `metadata.generateName`: the prefix, cut where it is too long, and five random letters.
pub fn generate_name(prefix: &str) -> String {
    let mut name: String = prefix.chars().take(MAX_PREFIX).collect();
    for _ in 0..RANDOM_LETTERS {
        let index = rand::random_range(0..LETTERS.len());
        name.push(LETTERS.get(index).copied().map_or('x', char::from));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_keep_their_prefix_and_differ() {
        let name = generate_name("web-");
        assert!(name.starts_with("web-"), "{name}");
        assert_eq!(name.len(), 9);
        assert!(crate::validation::dns_subdomain(&name).is_empty(), "{name}");
        assert_eq!(generate_name(&"a".repeat(200)).len(), 63);
        let many: std::collections::HashSet<String> = (0..50).map(|_| generate_name("a")).collect();
        assert!(many.len() > 45, "{many:?}");
    }
}
