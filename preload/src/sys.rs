//! OpenSSL's types: nobody here looks into one, or calls a callback.

/// A connection.
#[allow(clippy::upper_case_acronyms, reason = "the name that C programs know")]
pub enum SSL {}
/// A context.
#[allow(non_camel_case_types, reason = "the name that C programs know")]
pub enum SSL_CTX {}
/// A method: which protocol, and which role.
#[allow(non_camel_case_types, reason = "the name that C programs know")]
pub enum SSL_METHOD {}

pub type TicketKeyCallback = unsafe extern "C" fn();
pub type NewSessionCallback = unsafe extern "C" fn();
pub type GetSessionCallback = unsafe extern "C" fn();
pub type RemoveSessionCallback = unsafe extern "C" fn();
pub type AnyCallback = unsafe extern "C" fn();
pub type GenerateIdCallback = unsafe extern "C" fn();
pub type InfoCallback = unsafe extern "C" fn();
pub type AllowEarlyDataCallback = unsafe extern "C" fn();
