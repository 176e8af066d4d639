//! What HTTP carries: parameters, bodies, forms of answers, errors.

pub mod accept;
pub mod body;
pub mod query;
pub mod reply;
pub mod status;
