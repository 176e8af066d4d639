//! Rules for probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, PodSpec, Probe, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names;
use crate::field::{Errors, Path};

pub(super) fn lifecycle_and_probes(errors: &mut Errors, path: &Path<'_>, container: &Container, spec: &PodSpec) {
    if let Some(of_container) = &container.lifecycle {
        lifecycle(errors, &path.child("lifecycle"), of_container, spec);
    }
    if let Some(liveness) = &container.liveness_probe {
        let path = path.child("livenessProbe");
        probe(errors, &path, liveness);
        succeeds_once(errors, &path, liveness);
    }
    if let Some(readiness) = &container.readiness_probe {
        let path = path.child("readinessProbe");
        probe(errors, &path, readiness);
        if let Some(seconds) = readiness.termination_grace_period_seconds {
            errors.invalid(
                &path.child("terminationGracePeriodSeconds"),
                seconds,
                "must not be set for readinessProbes",
            );
        }
    }
    if let Some(startup) = &container.startup_probe {
        let path = path.child("startupProbe");
        probe(errors, &path, startup);
        succeeds_once(errors, &path, startup);
    }
}

fn probe(errors: &mut Errors, path: &Path<'_>, probe: &Probe) {
    handler(
        errors,
        path,
        &Handler {
            exec: probe.exec.as_ref(),
            http_get: probe.http_get.as_ref(),
            tcp_socket: probe.tcp_socket.as_ref(),
            grpc: probe.grpc.as_ref(),
            ..Handler::default()
        },
    );
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        if let Some(number) = number.filter(|number| *number < 0) {
            errors.invalid(&path.child(field), number, "must be greater than or equal to 0");
        }
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

fn succeeds_once(errors: &mut Errors, path: &Path<'_>, probe: &Probe) {
    if let Some(threshold) = probe.success_threshold.filter(|threshold| *threshold != 1) {
        errors.invalid(&path.child("successThreshold"), threshold, "must be 1");
    }
}

fn lifecycle(errors: &mut Errors, path: &Path<'_>, lifecycle: &Lifecycle, spec: &PodSpec) {
    let hooks = [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)];
    for (field, hook) in hooks.into_iter().filter_map(|(field, hook)| Some((field, hook.as_ref()?))) {
        let hook = Handler {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            sleep: hook.sleep.as_ref(),
            grace: spec.termination_grace_period_seconds,
            ..Handler::default()
        };
        handler(errors, &path.child(field), &hook);
    }
    if let Some(signal) = &lifecycle.stop_signal {
        stop_signal(errors, &path.child("stopSignal"), signal, spec);
    }
}

/// Names of signals differ between systems, so the Pod must say which one it is for (KEP-4960).
fn stop_signal(errors: &mut Errors, path: &Path<'_>, signal: &str, spec: &PodSpec) {
    if spec.os.is_none() {
        errors.forbidden(path, "may not be set for containers with empty `spec.os.name`");
        return;
    }
    let names = stop_signals();
    if !names.iter().any(|name| name == signal) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        errors.not_supported(path, signal, &names);
    }
}

/// Those of Linux, in the order of the alphabet.
fn stop_signals() -> Vec<String> {
    const NAMES: &str = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT RTMAX RTMIN SEGV \
                         STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ";
    let plain = NAMES.split(' ').map(|name| format!("SIG{name}"));
    let near_first = (1..=15).map(|offset| format!("SIGRTMIN+{offset}"));
    let near_last = (1..=14).map(|offset| format!("SIGRTMAX-{offset}"));
    let mut all: Vec<String> = plain.chain(near_first).chain(near_last).collect();
    all.sort();
    all
}

/// The action of a probe or a hook; exactly one must be given.
#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
    grace: Option<i64>,
}

fn handler(errors: &mut Errors, path: &Path<'_>, handler: &Handler<'_>) {
    let mut count = 0;
    let mut is_only = |errors: &mut Errors, field: &str| {
        count += 1;
        if count > 1 {
            errors.forbidden(&path.child(field), "may not specify more than 1 handler type");
        }
        count == 1
    };
    if let Some(exec) = handler.exec
        && is_only(errors, "exec")
        && exec.command.as_ref().is_none_or(Vec::is_empty)
    {
        errors.required(&path.child("exec").child("command"), "");
    }
    if let Some(http) = handler.http_get
        && is_only(errors, "httpGet")
    {
        http_get(errors, &path.child("httpGet"), http);
    }
    if let Some(tcp) = handler.tcp_socket
        && is_only(errors, "tcpSocket")
    {
        port(errors, &path.child("tcpSocket").child("port"), &tcp.port);
    }
    if let Some(grpc) = handler.grpc
        && is_only(errors, "grpc")
    {
        port(errors, &path.child("grpc").child("port"), &IntOrString::Int(grpc.port));
    }
    if let Some(sleep) = handler.sleep
        && is_only(errors, "sleep")
        && let Some(grace) = handler.grace
        && !(0..=grace).contains(&sleep.seconds)
    {
        let fault = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid(&path.child("sleep"), sleep.seconds, fault);
    }
    if count == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn http_get(errors: &mut Errors, path: &Path<'_>, http: &HTTPGetAction) {
    if http.path.as_deref().unwrap_or_default().is_empty() {
        errors.required(&path.child("path"), "");
    }
    port(errors, &path.child("port"), &http.port);
    let scheme = http.scheme.as_deref().unwrap_or_default();
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in http.http_headers.iter().flatten() {
        for fault in names::http_header_name(&header.name) {
            errors.invalid(&path.child("httpHeaders"), header.name.as_str(), fault);
        }
    }
}

fn port(errors: &mut Errors, path: &Path<'_>, port: &IntOrString) {
    match port {
        IntOrString::Int(number) => {
            for fault in names::port_number((*number).into()) {
                errors.invalid(path, *number, fault);
            }
        }
        IntOrString::String(name) => {
            for fault in names::port_name(name) {
                errors.invalid(path, name.as_str(), fault);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_is_one_that_linux_has() {
        let spec: PodSpec =
            serde_json::from_value(serde_json::json!({ "containers": [], "os": { "name": "linux" } })).unwrap();
        let faults = |signal: &str| {
            let mut errors = Errors::default();
            stop_signal(&mut errors, &Path::root("stopSignal"), signal, &spec);
            errors.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for signal in ["SIGTERM", "SIGUSR1", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX"] {
            assert_eq!(faults(signal), [] as [&str; 0], "{signal}");
        }
        for signal in ["TERM", "15", "SIGRTMIN+16", "SIGRTMAX-15", ""] {
            let faults = faults(signal);
            assert_eq!(faults.len(), 1, "{signal}");
            assert!(faults[0].contains("Unsupported value") && faults[0].contains("\"SIGTERM\""), "{faults:?}");
        }
    }
}
