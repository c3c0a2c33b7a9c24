//! An object as the admin API shows it: its own fields, and fields that are computed for the answer.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

#[derive(Serialize, Deserialize)]
pub struct Shown<T, C> {
    #[serde(flatten)]
    pub object: T,
    #[serde(flatten)]
    pub worked_out: C,
}

/// The document shows a single object. Its name is that of the computed part.
impl<T: PartialSchema, C: PartialSchema> PartialSchema for Shown<T, C> {
    fn schema() -> RefOr<Schema> {
        let (RefOr::T(Schema::Object(mut all)), RefOr::T(Schema::Object(more))) = (T::schema(), C::schema())
        else {
            unreachable!("both are structs with named fields");
        };
        all.properties.extend(more.properties);
        all.required.extend(more.required);
        all.description = more.description;
        Schema::Object(all).into()
    }
}

impl<T: ToSchema, C: ToSchema> ToSchema for Shown<T, C> {
    fn name() -> Cow<'static, str> {
        C::name()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
        C::schemas(schemas);
    }
}
