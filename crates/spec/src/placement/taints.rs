//! Taints of a node and what tolerates them.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// The first taint with one of these effects that nothing tolerates.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    taints.iter().filter(|taint| effects.contains(&taint.effect.as_str())).find(|taint| !tolerates(tolerations, taint))
}

/// Whether one of the tolerations matches the taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (key, effect) = (text(&toleration.key), text(&toleration.effect));
        let of_key = key.is_empty() || key == taint.key;
        let of_effect = effect.is_empty() || effect == taint.effect;
        let of_value = match toleration.operator.as_deref().unwrap_or_default() {
            "Exists" => true,
            // `Equal`, the default; without a key only `Exists` means everything.
            _ => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        };
        of_key && of_effect && of_value
    })
}
