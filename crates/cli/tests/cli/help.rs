//! The help that teaches: each command says what it does and shows examples.

use std::path::Path;

use crate::program::monopod;

/// Lines are wrapped to the width of a terminal, which a test does not have.
fn help(arguments: &[&str]) -> String {
    let finished = monopod(Path::new("/nowhere"), arguments);
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{arguments:?}");
    finished.stdout
}

#[test]
fn the_commands_stand_in_the_order_of_their_use() {
    insta::assert_snapshot!("help", help(&["--help"]));
}

#[test]
fn commands_have_examples() {
    for command in [
        "run",
        "get",
        "describe",
        "logs",
        "exec",
        "attach",
        "cp",
        "port-forward",
        "debug",
        "apply",
        "create",
        "delete",
        "wait",
        "events",
        "serve",
        "kubeconfig",
        "reset",
    ] {
        let text = help(&[command, "--help"]);
        assert!(text.contains("Examples:\n") && text.contains(&format!("monopod {command}")), "{text}");
    }
    insta::assert_snapshot!("help_run", help(&["run", "--help"]));
    insta::assert_snapshot!("help_exec", help(&["exec", "--help"]));
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for (shell, sign) in
        [("bash", "complete -F _monopod"), ("zsh", "#compdef monopod"), ("fish", "complete -c monopod")]
    {
        assert!(help(&["completion", shell]).contains(sign), "{shell}");
    }
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    let error = |arguments: &[&str]| {
        let finished = monopod(Path::new("/nowhere"), arguments);
        assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{arguments:?}");
        finished.stderr
    };
    insta::assert_snapshot!(error(&["gett", "pods"]), @r"
    error: unrecognized subcommand 'gett'

      tip: a similar subcommand exists: 'get'

    Usage: monopod [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    assert!(error(&["run", "web"]).contains("--image <IMAGE>"));
    assert!(error(&["logs", "web", "--since", "yesterday"]).contains("write it as 30s, 5m or 1h30m"));
    assert!(error(&["wait", "pod/web", "--for=ready"]).contains("condition=TYPE"));
}
