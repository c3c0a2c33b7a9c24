//! The layers in front of the handlers, one file each. Their order is in [`super`].

pub mod admin_token;
pub mod allow_list;
pub mod api_key;
pub mod context;
pub mod detach;
pub mod exchange_log;
pub mod render;
pub mod service_token;
