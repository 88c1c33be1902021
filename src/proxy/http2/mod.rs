//! What we watch of an HTTP/2 connection ourselves, where its bytes pass on their way to the codec and back.
//!
//! The codec keeps the protocol, and bounds what it would have to remember. What costs only time it does for as long as a
//! client asks: to answer pings, to apply settings, to open streams that are taken back, to end streams that the client
//! made fail. So every frame is counted here by what it costs us against what the connection is good for, and a client that
//! only costs is told so (GOAWAY, ENHANCE_YOUR_CALM) and closed.
//!
//! 1. `Frames` finds the frames of one direction, however they are cut into pieces.
//! 2. `Watch` keeps both directions, and says when it is enough, and why (`Cause`).
//!
//! Invariants: no socket, no memory that grows, and no clock but for a budget that is used up. What Pingora calls
//! (`proxy/pingora/io`) does the reading, the closing and the waiting.

mod cause;
mod frames;
mod watch;

pub use cause::{Cause, Cuts};
pub use watch::Watch;
