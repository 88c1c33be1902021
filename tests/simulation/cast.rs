//! Instances as a service has them, for what asks our own picking without a registry or a socket.

use std::sync::Arc;
use std::time::SystemTime;

use pointsman::model::{Address, InstanceId, InstanceSpec, Lifecycle, Origin, ServiceName};
use pointsman::pool::{Instance, InstanceState, Moment, Standing};

/// The n-th of service `s`, in use since `born`.
pub fn instance(n: usize, weight: u16, born: Moment) -> Arc<Instance> {
    let address = Address::parse(&format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255)).expect("an address");
    let standing = Standing {
        addr: address.socket_addr(),
        weight,
        lifecycle: Lifecycle::Ready,
        refused: None,
        limbo: None,
        overridden: false,
        revision: 1,
    };
    Arc::new(Instance {
        service: ServiceName::parse("s").expect("a name"),
        id: InstanceId::parse(&format!("i{n:05}")).expect("a name"),
        origin: Origin::Registry,
        spec: Arc::new(InstanceSpec::at(address)),
        standing,
        state: Arc::new(InstanceState::new(n as u64 + 1, SystemTime::UNIX_EPOCH, born)),
    })
}
