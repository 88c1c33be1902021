pub mod catalog;
pub mod config;
pub mod model;
pub mod pool;
pub mod resolver;
pub mod routing;
pub mod telemetry;
pub mod wire;
