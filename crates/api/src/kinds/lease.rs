//! Lease.

use spec::k8s_openapi::api::coordination::v1::Lease;
use spec::validation::validate_lease;

use crate::kinds::Kind;
use crate::kinds::plain::{Rules, admit_by};
use crate::table::{AGE, Column, NAME, Row, age, name, text};

/// `coordination.k8s.io/v1` Lease.
pub static LEASE: Kind = Kind {
    columns: &[NAME, Column::text("Holder", "Who holds it."), AGE],
    row: |object, now| Row::new(vec![name(object), text(object, "/spec/holderIdentity"), age(object, now)]),
    ..Kind::namespaced("coordination.k8s.io", "leases", "lease", "Lease", |value, admission| {
        admit_by::<Lease>(&Rules { validate: validate_lease, ..Rules::NONE }, value, admission)
    })
};
