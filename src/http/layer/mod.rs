//! The tower middleware, one file a layer. Their order is in [`super`].

pub mod admin_token;
pub mod allow_list;
pub mod api_key;
pub mod context;
pub mod detach;
pub mod exchange_log;
pub mod rate_limit;
pub mod render;
pub mod service_token;
