//! JSON, server-sent events and pages over plain HTTP, on either of its versions.

use crate::api;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::Service;
use std::convert::Infallible;
use std::future::{Ready, ready};

/// The service of everything that is not gRPC.
#[derive(Clone, Debug)]
pub struct Http {
    api: api::Jobs,
}

impl Http {
    /// Over these calls.
    pub fn new(api: api::Jobs) -> Self {
        Self { api }
    }
}

impl Service<Request<Incoming>> for Http {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, _: Request<Incoming>) -> Self::Future {
        ready(Ok(Response::new(Full::default())))
    }
}
