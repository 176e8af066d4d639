//! `subPath` and `subPathExpr`: which part of a volume a container sees. Words of the kubelet.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use spec::k8s_openapi::api::core::v1::VolumeMount;

use crate::environment::ContainerConfigError;

/// The path in the volume, expanded; `None` for all of it. What the path leads to is settled when it is mounted.
pub(super) fn of_mount(
    mount: &VolumeMount,
    variables: &[(String, String)],
) -> Result<Option<PathBuf>, ContainerConfigError> {
    let path = match mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        Some(expression) => expanded(expression, variables)?,
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    if path.is_empty() {
        return Ok(None);
    }
    if path.starts_with('/') {
        return Err(ContainerConfigError::new(format!("error SubPath `{path}` must not be an absolute path")));
    }
    if path.split('/').any(|part| part == "..") {
        let message = format!("unable to provision SubPath `{path}`: must not contain '..'");
        return Err(ContainerConfigError::new(message));
    }
    Ok(Some(PathBuf::from(path)))
}

/// An empty variable is as good as none: the container would get the whole volume, and others' files in it.
fn expanded(expression: &str, variables: &[(String, String)]) -> Result<String, ContainerConfigError> {
    let missing = RefCell::new(BTreeSet::new());
    let path = spec::expand::expand(expression, &|name| {
        let found = variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value);
        let value = found.filter(|value| !value.is_empty());
        if value.is_none() {
            missing.borrow_mut().insert(name.to_owned());
        }
        value.cloned()
    });
    let missing = missing.into_inner();
    if missing.is_empty() {
        return Ok(path);
    }
    let names: Vec<_> = missing.into_iter().collect();
    Err(ContainerConfigError::new(format!("missing value for {}", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_expanded_and_stay_inside() {
        let variables = [("POD", "web-0"), ("EMPTY", ""), ("UP", ".."), ("ROOT", "/"), ("POD", "web-1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let plain = |path: &str| json!({ "name": "v", "mountPath": "/v", "subPath": path });
        let expression = |path: &str| json!({ "name": "v", "mountPath": "/v", "subPathExpr": path });
        let table = [
            (plain(""), Ok(None)),
            (plain("a/b"), Ok(Some("a/b"))),
            (plain("$(POD)"), Ok(Some("$(POD)"))),
            (expression("logs/$(POD)"), Ok(Some("logs/web-1"))),
            (expression("$$(POD)"), Ok(Some("$(POD)"))),
            (expression("$(NONE)/$(EMPTY)/$(POD)"), Err("missing value for EMPTY, NONE")),
            (expression("$(UP)/x"), Err("unable to provision SubPath `../x`: must not contain '..'")),
            (expression("$(ROOT)etc"), Err("error SubPath `/etc` must not be an absolute path")),
        ];
        for (mount, wanted) in table {
            let found = of_mount(&serde_json::from_value(mount.clone()).unwrap(), &variables);
            let found = found.map_err(|error| error.to_string());
            assert_eq!(found, wanted.map(|path| path.map(PathBuf::from)).map_err(str::to_owned), "{mount}");
        }
    }
}
