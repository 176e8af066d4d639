//! The environment and the command line of a container: sources, order, `$(VAR)`. Pure but for the objects it is given.

use std::collections::BTreeMap;
use std::net::IpAddr;

use image::Image;
use spec::downward::{FieldPath, resource_field_value};
use spec::k8s_openapi::ByteString;
use spec::k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource};
use spec::resources::Amounts;

use crate::config_objects::{ConfigObjects, config_map_not_found, secret_not_found};
use crate::desired::DesiredPod;

/// `PATH` where the image sets none (containerd, `defaultUnixEnv`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an environment is made of beside the container.
pub struct EnvironmentSources<'a> {
    /// Whose container it is.
    pub desired: &'a DesiredPod,
    /// `ConfigMap`s and Secrets.
    pub objects: &'a dyn ConfigObjects,
    /// `status.podIPs`.
    pub pod_addresses: &'a [IpAddr],
    /// `status.hostIPs`.
    pub node_addresses: &'a [IpAddr],
    /// `spec.nodeName`.
    pub node_name: &'a str,
    /// Host name of the pod.
    pub hostname: &'a str,
    /// What the node can give, for limits that are not set.
    pub allocatable: Amounts,
}

/// Why a container cannot be configured yet, in the kubelet's words (`CreateContainerConfigError`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ContainerConfigError {
    /// The whole message.
    pub message: String,
}

impl ContainerConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// The variables that a container gets from its Pod: those of Services, `envFrom`, then `env`; a later one of the same
/// name wins.
pub fn pod_environment(
    container: &Container,
    sources: &EnvironmentSources<'_>,
) -> Result<Vec<(String, String)>, ContainerConfigError> {
    let links = sources.desired.spec.enable_service_links != Some(false);
    let mut variables = spec::service_links::variables(&sources.objects.services(links));
    let of_services = variables.clone();
    for source in container.env_from.iter().flatten() {
        variables.extend(variables_from(source, sources.objects)?);
    }
    let mut declared: BTreeMap<&str, String> = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value_from, &variable.value) {
            (Some(source), _) => value_from(source, container, sources)?,
            (None, text) => {
                let of_service = |name: &str| Some(of_services.iter().find(|(known, _)| known == name)?.1.clone());
                let lookup = |name: &str| declared.get(name).cloned().or_else(|| of_service(name));
                Some(spec::expand::expand(text.as_deref().unwrap_or_default(), &lookup))
            }
        };
        if let Some(value) = value {
            declared.insert(&variable.name, value.clone());
            variables.push((variable.name.clone(), value));
        }
    }
    Ok(variables)
}

/// The whole environment: the image's, what a runtime adds, the Pod's.
pub fn whole_environment(
    image: &Image,
    container: &Container,
    hostname: &str,
    pod_variables: &[(String, String)],
) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for (name, value) in image.variables() {
        set(&mut variables, &name, &value);
    }
    if !variables.iter().any(|(name, _)| name == "PATH") {
        set(&mut variables, "PATH", DEFAULT_PATH);
    }
    set(&mut variables, "HOSTNAME", hostname);
    if container.tty == Some(true) {
        set(&mut variables, "TERM", "xterm");
    }
    for (name, value) in pod_variables {
        set(&mut variables, name, value);
    }
    variables
}

/// Program and arguments: `command` replaces ENTRYPOINT and drops CMD, `args` replaces CMD alone.
pub fn command_line(
    image: &Image,
    container: &Container,
    pod_variables: &[(String, String)],
) -> Result<Vec<String>, ContainerConfigError> {
    let lookup =
        |name: &str| pod_variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| spec::expand::expand(text, &lookup)).collect()
    };
    let line = image.command_line(&expanded(&container.command), &expanded(&container.args));
    if line.is_empty() {
        return Err(ContainerConfigError::new("no command specified"));
    }
    Ok(line)
}

fn set(variables: &mut Vec<(String, String)>, name: &str, value: &str) {
    match variables.iter_mut().find(|(known, _)| known == name) {
        Some((_, present)) => value.clone_into(present),
        None => variables.push((name.to_owned(), value.to_owned())),
    }
}

fn variables_from(
    source: &EnvFromSource,
    objects: &dyn ConfigObjects,
) -> Result<Vec<(String, String)>, ContainerConfigError> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let mut variables = Vec::new();
    let mut add = |key: &str, value: String| {
        let name = format!("{prefix}{key}");
        // KEP-4369: any printable ASCII character but `=`.
        if !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
            variables.push((name, value));
        }
    };
    if let Some(reference) = &source.config_map_ref {
        match objects.config_map(&reference.name) {
            Some(map) => map.data.into_iter().flatten().for_each(|(key, value)| add(&key, value)),
            None if reference.optional == Some(true) => {}
            None => return Err(ContainerConfigError::new(config_map_not_found(&reference.name))),
        }
    }
    if let Some(reference) = &source.secret_ref {
        match objects.secret(&reference.name) {
            Some(secret) => secret.data.into_iter().flatten().for_each(|(key, value)| add(&key, text_of(&value))),
            None if reference.optional == Some(true) => {}
            None => return Err(ContainerConfigError::new(secret_not_found(&reference.name))),
        }
    }
    Ok(variables)
}

/// `None` where an optional source is not there: the variable is not set then.
fn value_from(
    source: &EnvVarSource,
    container: &Container,
    sources: &EnvironmentSources<'_>,
) -> Result<Option<String>, ContainerConfigError> {
    let namespace = &sources.desired.pod.pod_namespace;
    if let Some(field) = &source.field_ref {
        return pod_field(&field.field_path, sources).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        let value = resource_field_value(&sources.desired.object, container, field, sources.allocatable);
        return value.map(Some).map_err(|error| ContainerConfigError::new(crate::volumes::chain(&error)));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let (name, key, optional) = (&reference.name, &reference.key, reference.optional == Some(true));
        let Some(map) = sources.objects.config_map(name) else {
            return missing(optional, || config_map_not_found(name));
        };
        let value = map.data.and_then(|mut data| data.remove(key));
        return match value {
            Some(value) => Ok(Some(value)),
            None => missing(optional, || format!("couldn't find key {key} in ConfigMap {namespace}/{name}")),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let (name, key, optional) = (&reference.name, &reference.key, reference.optional == Some(true));
        let Some(secret) = sources.objects.secret(name) else {
            return missing(optional, || secret_not_found(name));
        };
        let value = secret.data.and_then(|mut data| data.remove(key));
        return match value {
            Some(value) => Ok(Some(text_of(&value))),
            None => missing(optional, || format!("couldn't find key {key} in Secret {namespace}/{name}")),
        };
    }
    Err(ContainerConfigError::new("this source of an environment variable is not supported"))
}

fn missing(optional: bool, message: impl FnOnce() -> String) -> Result<Option<String>, ContainerConfigError> {
    if optional { Ok(None) } else { Err(ContainerConfigError::new(message())) }
}

/// The kernel takes bytes; what is no UTF-8 is replaced, as a Pod's own strings could not hold it either.
fn text_of(bytes: &ByteString) -> String {
    String::from_utf8_lossy(&bytes.0).into_owned()
}

fn pod_field(path: &str, sources: &EnvironmentSources<'_>) -> Result<String, ContainerConfigError> {
    let field = FieldPath::parse(path).map_err(|error| ContainerConfigError::new(error.to_string()))?;
    let first = |list: &[IpAddr]| list.first().map(IpAddr::to_string).unwrap_or_default();
    let all = |list: &[IpAddr]| list.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    Ok(match field {
        // The stored status may not have these yet: the container starts before its status is written.
        FieldPath::HostIp => first(sources.node_addresses),
        FieldPath::HostIps => all(sources.node_addresses),
        FieldPath::PodIp => first(sources.pod_addresses),
        FieldPath::PodIps => all(sources.pod_addresses),
        FieldPath::NodeName => sources.node_name.to_owned(),
        FieldPath::Labels | FieldPath::Annotations => {
            return Err(ContainerConfigError::new(format!("unsupported fieldPath: {path}")));
        }
        FieldPath::Name
        | FieldPath::Namespace
        | FieldPath::Uid
        | FieldPath::Label(_)
        | FieldPath::Annotation(_)
        | FieldPath::ServiceAccountName => field.value(&sources.desired.object),
    })
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
