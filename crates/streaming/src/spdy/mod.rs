//! SPDY/3.1 as Go's clients speak it (draft-mbelshe-httpbis-spdy-00): many streams over one upgraded connection. There is
//! no crate for it. Without flow control, as those clients have none: a stream that is not read holds its connection up,
//! and so memory stays bounded.

mod connection;
mod frame;
mod headers;

pub use connection::{Accepted, Connection, StreamWriter};
