//! Reads YAML as Kubernetes' own tools do, so that a manifest means the same here and there.
//!
//! They follow YAML 1.1: `0644` is octal and `yes` is true, but `y` is a text (Go's yaml.v2, sigs.k8s.io/yaml).

use serde_json::Value;

/// The documents of a text; empty ones are left out.
pub fn documents(text: &str) -> Result<Vec<Value>, Box<serde_saphyr::Error>> {
    let read = |strict_booleans| {
        let options = serde_saphyr::options! { strict_booleans: strict_booleans, legacy_octal_numbers: true };
        serde_saphyr::from_multiple_with_options::<Value>(text, options).map_err(Box::new)
    };
    let mut documents = read(false)?;
    // Only reading both ways tells a plain `y` from a plain `true`.
    for (document, strict) in documents.iter_mut().zip(read(true)?) {
        keep_single_letters(document, &strict);
    }
    Ok(documents)
}

/// What is wrong, without the place and without advice to programmers.
pub fn message(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _place)| message);
    message.split(", set DuplicateKeyPolicy").next().unwrap_or(message).to_owned()
}

fn keep_single_letters(value: &mut Value, strict: &Value) {
    match (value, strict) {
        (value @ Value::Bool(_), Value::String(text)) if matches!(text.as_str(), "y" | "Y" | "n" | "N") => {
            value.clone_from(strict);
        }
        (Value::Array(items), Value::Array(strict)) => {
            items.iter_mut().zip(strict).for_each(|(item, strict)| keep_single_letters(item, strict));
        }
        (Value::Object(fields), Value::Object(strict)) => {
            for (key, field) in fields {
                keep_single_letters(field, strict.get(key).unwrap_or(&Value::Null));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_are_what_kubectl_takes_them_for() {
        for (text, value) in [
            ("true", json!(true)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!("y")),
            ("N", json!("N")),
            ("'yes'", json!("yes")),
            ("\"true\"", json!("true")),
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0x10", json!(16)),
            ("12", json!(12)),
            ("0.5", json!(0.5)),
            ("1.27", json!(1.27)),
            ("1.27.1", json!("1.27.1")),
            ("64Mi", json!("64Mi")),
            ("~", json!(null)),
            ("", json!(null)),
            ("2026-01-01", json!("2026-01-01")),
            ("22:22", json!("22:22")),
            ("/bin/sh", json!("/bin/sh")),
            ("'0644'", json!("0644")),
        ] {
            let documents = documents(&format!("a: {text}\nb: [{{c: {text}}}]\n")).unwrap();
            assert_eq!(documents, [json!({"a": value, "b": [{"c": value}]})], "{text}");
        }
    }

    #[test]
    fn block_texts_anchors_and_merges_are_read() {
        let text = "a: &x {k: 1}\nb: *x\nc: {<<: *x, l: 2}\nd: |\n  one\n  two\ne: >-\n  one\n  two\n---\n---\nf: g\n";
        let expected = [
            json!({"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "l": 2}, "d": "one\ntwo\n", "e": "one two"}),
            json!({"f": "g"}),
        ];
        assert_eq!(documents(text).unwrap(), expected);
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(9);
            let level = level.to_string();
            text.extend(["a", &level, ": &a", &level, " [", before.trim_end_matches(", "), "]\n"]);
        }
        assert!(documents(&text).is_err());
    }
}
