//! The libssl libraries of a process. There may be several: a program's own, and others that its modules brought.

use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::mem::transmute_copy;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::functions::Functions;
use crate::sys::{SSL, SSL_CTX, SSL_METHOD};

/// The soname of the libssl that libtlsresume.so is linked with; the Makefile reads it there.
const SUPPORTED: &str = concat!(env!("TLSRESUME_LIBSSL"), "\0");

/// One libssl. It is found once and never forgotten: the handle keeps it loaded.
pub struct Libssl {
    /// Where it begins in memory.
    base: usize,
    handle: *mut c_void,
    /// What to call for its objects: its own functions, or the library's in their place.
    in_force: AtomicPtr<Functions>,
    own: Functions,
    pub makers: Makers,
    client_methods: [*const SSL_METHOD; 2],
    next: *const Libssl,
}

/// Functions that make connections inside libssl, where one that is linked with `-Bsymbolic` calls itself and no hook.
pub struct Makers {
    pub dup: unsafe extern "C" fn(*mut SSL) -> *mut SSL,
    pub bio_new_ssl: unsafe extern "C" fn(*mut SSL_CTX, c_int) -> *mut c_void,
    pub bio_new_ssl_connect: unsafe extern "C" fn(*mut SSL_CTX) -> *mut c_void,
    pub bio_new_buffer_ssl_connect: unsafe extern "C" fn(*mut SSL_CTX) -> *mut c_void,
    bio_ctrl: unsafe extern "C" fn(*mut c_void, c_int, c_long, *mut c_void) -> c_long,
}

impl Makers {
    fn of(handle: *mut c_void) -> Makers {
        Makers {
            dup: find_or_absent(handle, c"SSL_dup"),
            bio_new_ssl: find_or_absent(handle, c"BIO_new_ssl"),
            bio_new_ssl_connect: find_or_absent(handle, c"BIO_new_ssl_connect"),
            bio_new_buffer_ssl_connect: find_or_absent(handle, c"BIO_new_buffer_ssl_connect"),
            bio_ctrl: find_or_absent(handle, c"BIO_ctrl"),
        }
    }

    /// The connection inside a BIO that one of these functions made; NULL if there is none.
    pub fn connection(&self, bio: *mut c_void) -> *mut SSL {
        /// BIO_get_ssl(3) is a macro around it.
        const BIO_C_GET_SSL: c_int = 110;
        let mut ssl: *mut SSL = ptr::null_mut();
        if !bio.is_null() {
            // SAFETY: the BIO was just made by the same libssl, and writes a pointer to a connection.
            unsafe { (self.bio_ctrl)(bio, BIO_C_GET_SSL, 0, (&raw mut ssl).cast()) };
        }
        ssl
    }
}

static FOUND: AtomicPtr<Libssl> = AtomicPtr::new(ptr::null_mut());

impl Libssl {
    /// The libssl that an address of code or static data lies in; `None` when that is no shared library or memory is
    /// short.
    pub fn around(address: *const c_void) -> Option<&'static Libssl> {
        // SAFETY: the structure is plain data that the call fills; no address is followed.
        let object = unsafe {
            let mut object = core::mem::zeroed::<libc::Dl_info>();
            if libc::dladdr(address, &raw mut object) == 0 {
                return None;
            }
            object
        };
        let base = object.dli_fbase.addr();
        loop {
            let newest = FOUND.load(Ordering::Acquire);
            if let Some(found) = Self::in_list(newest, base) {
                return Some(found);
            }
            // SAFETY: the name is a C string that the dynamic linker keeps.
            let new = unsafe { Self::new(base, object.dli_fname, newest)? };
            let order = Ordering::AcqRel;
            // Another thread may have been faster: then look again. What was made is lost then, once in a life.
            if FOUND.compare_exchange(newest, new, order, Ordering::Relaxed).is_ok() {
                // SAFETY: just made, and never freed.
                return Some(unsafe { &*new });
            }
        }
    }

    /// The libssl that a program uses which has made no context so far.
    pub fn of_the_program() -> Option<&'static Libssl> {
        const NEXT: *mut c_void = libc::RTLD_NEXT;
        // SAFETY: names are C strings.
        let address = unsafe {
            let linked = libc::dlsym(NEXT, c"SSL_new".as_ptr());
            if linked.is_null() { libc::dlsym(supported(), c"SSL_new".as_ptr()) } else { linked }
        };
        if address.is_null() { None } else { Self::around(address) }
    }

    /// What to call for its objects.
    pub fn functions(&self) -> &'static Functions {
        // SAFETY: points to `own` of a Libssl, or to the library's table; neither is ever freed.
        unsafe { &*self.in_force.load(Ordering::Acquire) }
    }

    /// Its own functions.
    pub fn own_functions(&'static self) -> &'static Functions {
        &self.own
    }

    /// From now on, these are called for its objects.
    pub fn replace_functions(&self, functions: &'static Functions) {
        self.in_force.store(ptr::from_ref(functions).cast_mut(), Ordering::Release);
    }

    /// Whether libtlsresume.so, when it is loaded, will use this libssl.
    pub fn is_supported(&self) -> bool {
        self.handle == supported()
    }

    /// Whether a method is for clients only. The methods for a single version, long deprecated, are not looked at.
    pub fn is_client_method(&self, method: *const SSL_METHOD) -> bool {
        self.client_methods.contains(&method)
    }

    fn in_list(newest: *const Libssl, base: usize) -> Option<&'static Libssl> {
        // SAFETY: the list has only libraries that were put there whole, and are never freed.
        let newest = unsafe { newest.as_ref() };
        // SAFETY: as above.
        let mut all = core::iter::successors(newest, |libssl| unsafe { libssl.next.as_ref() });
        all.find(|libssl| libssl.base == base)
    }

    /// # Safety
    /// `path` is the C string under which the dynamic linker knows the object.
    unsafe fn new(base: usize, path: *const c_char, next: *const Libssl) -> Option<*mut Libssl> {
        // SAFETY: a C string (caller). The object is loaded: only a reference is taken.
        let handle = unsafe { libc::dlopen(path, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if handle.is_null() {
            return None;
        }
        let method = |name: &CStr| {
            let make = find::<Option<unsafe extern "C" fn() -> *const SSL_METHOD>>(handle, name);
            // SAFETY: OpenSSL's functions of these names take nothing and return a static method.
            make.map_or(ptr::null(), |make| unsafe { make() })
        };
        let libssl = Libssl {
            base,
            handle,
            in_force: AtomicPtr::new(ptr::null_mut()),
            own: functions(handle),
            makers: Makers::of(handle),
            client_methods: [method(c"TLS_client_method"), method(c"DTLS_client_method")],
            next,
        };
        // SAFETY: fresh memory of the right size, which malloc aligns for anything; filled before anybody sees it.
        unsafe {
            let place = libc::malloc(size_of::<Libssl>()).cast::<Libssl>();
            if place.is_null() {
                return None;
            }
            place.write(libssl);
            (*place).in_force.store(&raw mut (*place).own, Ordering::Release);
            Some(place)
        }
    }
}

/// The handle of the supported libssl, if the process has it; NULL otherwise.
pub fn supported() -> *mut c_void {
    // SAFETY: a C string; nothing is loaded, and a reference that stays does no harm.
    unsafe { libc::dlopen(SUPPORTED.as_ptr().cast(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) }
}

/// The function of that name, as a function pointer or an optional one.
fn find<F: Copy>(handle: *mut c_void, name: &CStr) -> F {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: a handle of dlopen and a C string. F is the type that OpenSSL documents for the name: `functions` and
    // `new` see to it.
    unsafe {
        let address = libc::dlsym(handle, name.as_ptr());
        transmute_copy(&address)
    }
}

/// As `find`, where a function pointer must not be NULL. Nobody calls a function that its libssl does not have: the
/// program could not have been linked.
fn find_or_absent<F: Copy>(handle: *mut c_void, name: &CStr) -> F {
    unsafe extern "C" fn absent() -> *mut c_void {
        ptr::null_mut()
    }
    let found: Option<unsafe extern "C" fn() -> *mut c_void> = find(handle, name);
    let function = found.unwrap_or(absent);
    // SAFETY: as in `find`.
    unsafe { transmute_copy(&function) }
}

fn functions(handle: *mut c_void) -> Functions {
    let h = handle;
    Functions {
        ctx_new: find_or_absent(h, c"SSL_CTX_new"),
        ctx_new_ex: find(h, c"SSL_CTX_new_ex"),
        new: find_or_absent(h, c"SSL_new"),
        new_listener: find(h, c"SSL_new_listener"),
        new_listener_from: find(h, c"SSL_new_listener_from"),
        set_ssl_ctx: find_or_absent(h, c"SSL_set_SSL_CTX"),
        set_connect_state: find_or_absent(h, c"SSL_set_connect_state"),
        connect: find_or_absent(h, c"SSL_connect"),
        ctx_ctrl: find_or_absent(h, c"SSL_CTX_ctrl"),
        ctx_callback_ctrl: find_or_absent(h, c"SSL_CTX_callback_ctrl"),
        ctx_sess_set_new_cb: find_or_absent(h, c"SSL_CTX_sess_set_new_cb"),
        ctx_sess_get_new_cb: find_or_absent(h, c"SSL_CTX_sess_get_new_cb"),
        ctx_sess_set_get_cb: find_or_absent(h, c"SSL_CTX_sess_set_get_cb"),
        ctx_sess_get_get_cb: find_or_absent(h, c"SSL_CTX_sess_get_get_cb"),
        ctx_sess_set_remove_cb: find_or_absent(h, c"SSL_CTX_sess_set_remove_cb"),
        ctx_sess_get_remove_cb: find_or_absent(h, c"SSL_CTX_sess_get_remove_cb"),
        ctx_set_ticket_key_evp_cb: find(h, c"SSL_CTX_set_tlsext_ticket_key_evp_cb"),
        ctx_set_num_tickets: find_or_absent(h, c"SSL_CTX_set_num_tickets"),
        ctx_get_num_tickets: find_or_absent(h, c"SSL_CTX_get_num_tickets"),
        ctx_set_timeout: find_or_absent(h, c"SSL_CTX_set_timeout"),
        ctx_get_timeout: find_or_absent(h, c"SSL_CTX_get_timeout"),
        ctx_set_options: find_or_absent(h, c"SSL_CTX_set_options"),
        ctx_clear_options: find_or_absent(h, c"SSL_CTX_clear_options"),
        ctx_set_generate_session_id: find_or_absent(h, c"SSL_CTX_set_generate_session_id"),
        ctx_set_session_id_context: find_or_absent(h, c"SSL_CTX_set_session_id_context"),
        ctx_set_allow_early_data_cb: find_or_absent(h, c"SSL_CTX_set_allow_early_data_cb"),
        set_allow_early_data_cb: find_or_absent(h, c"SSL_set_allow_early_data_cb"),
        set_session_id_context: find_or_absent(h, c"SSL_set_session_id_context"),
        get_info_callback: find_or_absent(h, c"SSL_get_info_callback"),
        set_info_callback: find_or_absent(h, c"SSL_set_info_callback"),
        set_options: find_or_absent(h, c"SSL_set_options"),
        clear_options: find_or_absent(h, c"SSL_clear_options"),
    }
}
