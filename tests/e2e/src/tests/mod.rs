//! All end-to-end tests, by what they are about.

use e2e::TestNode;

/// A test and how it is called.
pub struct Test {
    /// The module it stands in.
    pub module: &'static str,
    /// Its function's name.
    pub name: &'static str,
    /// Gets a node of its own, with the image `busybox:stable`; the leak check follows.
    pub run: fn(&mut TestNode),
    /// Left out unless asked for (`--ignored`).
    pub long: bool,
}

/// Lists the tests of a module; a function that is forgotten here is dead code, which clippy refuses.
macro_rules! tests {
    ($($name:ident),* $(,)?; long: $($long:ident),* $(,)?) => {
        pub const TESTS: &[crate::tests::Test] = &[
            $(crate::tests::Test { module: module_path!(), name: stringify!($name), run: $name, long: false },)*
            $(crate::tests::Test { module: module_path!(), name: stringify!($long), run: $long, long: true },)*
        ];
    };
    ($($name:ident),* $(,)?) => { tests! { $($name),*; long: } };
}

mod apparmor;
mod attacks;
mod backup;
mod bad_input;
mod claims;
mod clients;
mod command_line;
mod container;
mod crash;
mod dead_storage;
mod durable;
mod ending;
mod ephemeral;
mod eviction;
mod host;
mod host_ports;
mod huge_pages;
mod image;
mod image_volume;
mod in_cluster;
mod isolation;
mod kubectl;
mod kubectl_verbs;
mod life;
mod logs;
mod metrics;
mod namespaces;
mod network;
mod probes;
mod proxy;
mod refused;
mod registry;
mod resources;
mod sandbox;
mod scheduling;
mod secrets;
mod services;
mod sidecars;
mod soak;
mod stopping;
mod storage;
mod streams;
mod sub_paths;
mod sysctls;
mod users;
mod whole_pods;
mod workloads;

/// Every module's tests.
pub const ALL: &[&[Test]] = &[
    apparmor::TESTS,
    attacks::TESTS,
    backup::TESTS,
    bad_input::TESTS,
    claims::TESTS,
    clients::TESTS,
    command_line::TESTS,
    container::TESTS,
    crash::TESTS,
    dead_storage::TESTS,
    ending::TESTS,
    durable::TESTS,
    eviction::TESTS,
    ephemeral::TESTS,
    host::TESTS,
    host_ports::TESTS,
    huge_pages::TESTS,
    image::TESTS,
    image_volume::TESTS,
    in_cluster::TESTS,
    isolation::TESTS,
    kubectl::TESTS,
    kubectl_verbs::TESTS,
    life::TESTS,
    logs::TESTS,
    metrics::TESTS,
    namespaces::TESTS,
    network::TESTS,
    probes::TESTS,
    proxy::TESTS,
    refused::TESTS,
    registry::TESTS,
    resources::TESTS,
    sandbox::TESTS,
    scheduling::TESTS,
    secrets::TESTS,
    services::TESTS,
    sidecars::TESTS,
    soak::TESTS,
    stopping::TESTS,
    storage::TESTS,
    streams::TESTS,
    sub_paths::TESTS,
    sysctls::TESTS,
    users::TESTS,
    whole_pods::TESTS,
    workloads::TESTS,
];
