
/*
 * Instances of libtlsresume, one for each configuration, kept by the process
 * while cycles of nginx come and go.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */


#include <ngx_tlsresume.h>


#define NGX_TLSRESUME_DIGEST_LEN  32   /* SHA-256 */


struct ngx_tlsresume_instance_s {
    TLSRESUME                 *handle;

    /* file name with a final NUL; empty: no file, but the environment */
    ngx_str_t                  name;

    /* of the file's text when it was read */
    u_char                     digest[NGX_TLSRESUME_DIGEST_LEN];

    /* the last cycle that names it; NULL once that is gone */
    ngx_cycle_t               *cycle;

    /* one for each directive of each cycle that has not been freed */
    ngx_uint_t                 references;

    ngx_tlsresume_instance_t  *next;

    /* the last one of its name that was in force */
    unsigned                   in_force:1;
};


typedef struct {
    ngx_tlsresume_instance_t  *instance;
    ngx_cycle_t               *cycle;
} ngx_tlsresume_reference_t;


typedef struct {
    ngx_tlsresume_instance_t  *instances;
    ngx_uint_t                 cycles;
} ngx_tlsresume_state_t;


static void ngx_tlsresume_release(void *data);
static char *ngx_tlsresume_use(ngx_conf_t *cf, ngx_str_t *name,
    ngx_tlsresume_instance_t **instance);
static char *ngx_tlsresume_check(ngx_conf_t *cf, ngx_str_t *name);
static const char *ngx_tlsresume_path(ngx_str_t *name);
static ngx_tlsresume_instance_t *ngx_tlsresume_get(ngx_conf_t *cf,
    ngx_str_t *name);
static void ngx_tlsresume_give_back(void *data);
static void ngx_tlsresume_digest(ngx_conf_t *cf, ngx_str_t *name,
    u_char *digest);
static void ngx_tlsresume_digest_file(ngx_file_t *file, u_char *digest);
static ngx_uint_t ngx_tlsresume_is_named(ngx_tlsresume_instance_t *instance,
    ngx_str_t *name);
static ngx_tlsresume_instance_t *ngx_tlsresume_find_named_by(ngx_cycle_t *cycle,
    ngx_str_t *name);
static ngx_tlsresume_instance_t *ngx_tlsresume_find_read(ngx_str_t *name,
    u_char *digest);
static ngx_tlsresume_instance_t *ngx_tlsresume_find_in_force(ngx_str_t *name);
static ngx_tlsresume_instance_t *ngx_tlsresume_create(ngx_conf_t *cf,
    ngx_str_t *name, u_char *digest);
static ngx_uint_t ngx_tlsresume_loses(TLSRESUME *old, TLSRESUME *new);
static void ngx_tlsresume_put_in_force(ngx_cycle_t *cycle,
    ngx_tlsresume_instance_t *instance);
static void ngx_tlsresume_free_unused(void);
static void ngx_tlsresume_free(ngx_tlsresume_instance_t *instance);
static void ngx_tlsresume_log(int level, const char *message, void *arg);
static const char *ngx_tlsresume_reason(void);


/*
 * Not static on purpose: nginx loads modules with RTLD_GLOBAL, so the module
 * that is loaded second uses the state (and the functions) of the first, and
 * http and stream have one instance for one file.  The linker sees to it that
 * the first is not unloaded before the second.
 */

ngx_tlsresume_state_t  ngx_tlsresume_state;


/*
 * "nginx -s" reads the configuration only to find the pid, and "nginx -t" only
 * to check it: neither opens the memory, which running servers may have.
 */

static ngx_tlsresume_instance_t  ngx_tlsresume_none;


void *
ngx_tlsresume_create_main_conf(ngx_conf_t *cf)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(cf->cycle->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_tlsresume_release;

    if (ngx_tlsresume_state.cycles++ == 0) {
        tlsresume_set_log_callback(ngx_tlsresume_log, NULL);
    }

    return &ngx_tlsresume_state;
}


void *
ngx_tlsresume_create_srv_conf(ngx_conf_t *cf)
{
    ngx_tlsresume_srv_conf_t  *tscf;

    tscf = ngx_pcalloc(cf->pool, sizeof(ngx_tlsresume_srv_conf_t));
    if (tscf == NULL) {
        return NULL;
    }

    tscf->instance = NGX_CONF_UNSET_PTR;

    return tscf;
}


char *
ngx_tlsresume_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_tlsresume_srv_conf_t *prev = parent;
    ngx_tlsresume_srv_conf_t *conf = child;

    ngx_conf_merge_ptr_value(conf->instance, prev->instance, NULL);

    return NGX_CONF_OK;
}


/*
 * The cleanups of a pool run in reverse order: this is after the contexts of
 * the cycle were freed and its references given back, and before its modules
 * are unloaded.
 */

static void
ngx_tlsresume_release(void *data)
{
    ngx_tlsresume_instance_t  *instance, *next;

    if (--ngx_tlsresume_state.cycles > 0) {
        return;
    }

    for (instance = ngx_tlsresume_state.instances; instance; instance = next) {
        next = instance->next;
        ngx_tlsresume_free(instance);
    }

    ngx_tlsresume_state.instances = NULL;

    tlsresume_set_log_callback(NULL, NULL);
}


char *
ngx_tlsresume_set_slot(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char  *p = conf;

    char                       *env;
    ngx_str_t                  *value, name;
    ngx_tlsresume_instance_t  **instance;

    instance = (ngx_tlsresume_instance_t **) (p + cmd->offset);

    if (*instance != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcasecmp(value[1].data, (u_char *) "off") == 0) {
        *instance = NULL;
        return NGX_CONF_OK;
    }

    if (ngx_strcasecmp(value[1].data, (u_char *) "on") == 0) {

        /* as the library itself finds it, to see whether the text changed */

        env = secure_getenv("TLSRESUME_CONFIG");

        name.data = (u_char *) (env ? env : "");
        name.len = ngx_strlen(name.data);

        return ngx_tlsresume_use(cf, &name, instance);
    }

    /* a mistyped "on" is not looked for as a file */

    if (ngx_strlchr(value[1].data, value[1].data + value[1].len, '/') == NULL
        && ngx_strlchr(value[1].data, value[1].data + value[1].len, '.')
           == NULL)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\" directive, "
                           "it must be \"on\", \"off\" or a file",
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    name = value[1];

    if (ngx_conf_full_name(cf->cycle, &name, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return ngx_tlsresume_use(cf, &name, instance);
}


/*
 * The cycle refers to the instance until its pool is destroyed, by a reload
 * that failed or when its last connection is gone: without a master process
 * that is long after the next cycle is in force.
 */

static char *
ngx_tlsresume_use(ngx_conf_t *cf, ngx_str_t *name,
    ngx_tlsresume_instance_t **instance)
{
    ngx_pool_cleanup_t         *cln;
    ngx_tlsresume_reference_t  *reference;

    if (ngx_process == NGX_PROCESS_SIGNALLER) {
        *instance = &ngx_tlsresume_none;
        return NGX_CONF_OK;
    }

    if (ngx_test_config) {
        *instance = &ngx_tlsresume_none;
        return ngx_tlsresume_check(cf, name);
    }

    cln = ngx_pool_cleanup_add(cf->cycle->pool,
                               sizeof(ngx_tlsresume_reference_t));
    if (cln == NULL) {
        return NGX_CONF_ERROR;
    }

    *instance = ngx_tlsresume_get(cf, name);

    if (*instance == NULL) {
        return NGX_CONF_ERROR;
    }

    (*instance)->cycle = cf->cycle;
    (*instance)->references++;

    reference = cln->data;
    reference->instance = *instance;
    reference->cycle = cf->cycle;

    cln->handler = ngx_tlsresume_give_back;

    return NGX_CONF_OK;
}


static char *
ngx_tlsresume_check(ngx_conf_t *cf, ngx_str_t *name)
{
    ERR_clear_error();

    if (tlsresume_check(ngx_tlsresume_path(name))) {
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "tlsresume: %s",
                       ngx_tlsresume_reason());
    ERR_clear_error();

    return NGX_CONF_ERROR;
}


/* as the library takes it: without a file the environment counts */

static const char *
ngx_tlsresume_path(ngx_str_t *name)
{
    return name->len ? (const char *) name->data : NULL;
}


/* in one cycle a file counts as it was read first */

static ngx_tlsresume_instance_t *
ngx_tlsresume_get(ngx_conf_t *cf, ngx_str_t *name)
{
    u_char                     digest[NGX_TLSRESUME_DIGEST_LEN];
    ngx_tlsresume_instance_t  *instance;

    instance = ngx_tlsresume_find_named_by(cf->cycle, name);

    if (instance) {
        return instance;
    }

    ngx_tlsresume_digest(cf, name, digest);

    instance = ngx_tlsresume_find_read(name, digest);

    if (instance) {
        return instance;
    }

    return ngx_tlsresume_create(cf, name, digest);
}


static void
ngx_tlsresume_give_back(void *data)
{
    ngx_tlsresume_reference_t *reference = data;

    /* another cycle may get the same address */

    if (reference->instance->cycle == reference->cycle) {
        reference->instance->cycle = NULL;
    }

    reference->instance->references--;

    ngx_tlsresume_free_unused();
}


/*
 * A file that cannot be read has the digest zero: to say what is wrong with it
 * is left to the library.
 */

static void
ngx_tlsresume_digest(ngx_conf_t *cf, ngx_str_t *name, u_char *digest)
{
    ngx_file_t  file;

    ngx_memzero(digest, NGX_TLSRESUME_DIGEST_LEN);

    if (name->len == 0) {
        return;
    }

    ngx_memzero(&file, sizeof(ngx_file_t));

    file.name = *name;
    file.log = cf->log;

    /* not blocking: it may be a FIFO, which the library refuses */

    file.fd = ngx_open_file(name->data, NGX_FILE_RDONLY|NGX_FILE_NONBLOCK,
                            NGX_FILE_OPEN, 0);

    if (file.fd == NGX_INVALID_FILE) {
        return;
    }

    ngx_tlsresume_digest_file(&file, digest);

    if (ngx_close_file(file.fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, cf->log, ngx_errno,
                      ngx_close_file_n " \"%V\" failed", name);
    }
}


static void
ngx_tlsresume_digest_file(ngx_file_t *file, u_char *digest)
{
    size_t           size;
    ssize_t          n;
    u_char          *text;
    ngx_file_info_t  fi;

    if (ngx_fd_info(file->fd, &fi) == NGX_FILE_ERROR || !ngx_is_file(&fi)) {
        return;
    }

    size = (size_t) ngx_file_size(&fi);

    text = ngx_alloc(size + 1, file->log);
    if (text == NULL) {
        return;
    }

    n = ngx_read_file(file, text, size, 0);

    if (n >= 0) {
        (void) EVP_Digest(text, n, digest, NULL, EVP_sha256(), NULL);
    }

    ngx_free(text);
}


static ngx_uint_t
ngx_tlsresume_is_named(ngx_tlsresume_instance_t *instance, ngx_str_t *name)
{
    return instance->name.len == name->len
           && ngx_memcmp(instance->name.data, name->data, name->len) == 0;
}


static ngx_tlsresume_instance_t *
ngx_tlsresume_find_named_by(ngx_cycle_t *cycle, ngx_str_t *name)
{
    ngx_tlsresume_instance_t  *instance;

    for (instance = ngx_tlsresume_state.instances;
         instance;
         instance = instance->next)
    {
        if (instance->cycle == cycle && ngx_tlsresume_is_named(instance, name))
        {
            return instance;
        }
    }

    return NULL;
}


static ngx_tlsresume_instance_t *
ngx_tlsresume_find_read(ngx_str_t *name, u_char *digest)
{
    ngx_tlsresume_instance_t  *instance;

    for (instance = ngx_tlsresume_state.instances;
         instance;
         instance = instance->next)
    {
        if (ngx_tlsresume_is_named(instance, name)
            && ngx_memcmp(instance->digest, digest, NGX_TLSRESUME_DIGEST_LEN)
               == 0)
        {
            return instance;
        }
    }

    return NULL;
}


static ngx_tlsresume_instance_t *
ngx_tlsresume_find_in_force(ngx_str_t *name)
{
    ngx_tlsresume_instance_t  *instance;

    for (instance = ngx_tlsresume_state.instances;
         instance;
         instance = instance->next)
    {
        if (instance->in_force && ngx_tlsresume_is_named(instance, name)) {
            return instance;
        }
    }

    return NULL;
}


static ngx_tlsresume_instance_t *
ngx_tlsresume_create(ngx_conf_t *cf, ngx_str_t *name, u_char *digest)
{
    ngx_tlsresume_instance_t  *instance;

    instance = ngx_calloc(sizeof(ngx_tlsresume_instance_t) + name->len + 1,
                          cf->log);
    if (instance == NULL) {
        return NULL;
    }

    instance->name.len = name->len;
    instance->name.data = (u_char *) (instance + 1);
    (void) ngx_cpystrn(instance->name.data, name->data, name->len + 1);

    ngx_memcpy(instance->digest, digest, NGX_TLSRESUME_DIGEST_LEN);

    ERR_clear_error();

    instance->handle = tlsresume_new(ngx_tlsresume_path(&instance->name));

    if (instance->handle == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "tlsresume: %s",
                           ngx_tlsresume_reason());
        ERR_clear_error();
        ngx_free(instance);
        return NULL;
    }

    instance->next = ngx_tlsresume_state.instances;
    ngx_tlsresume_state.instances = instance;

    return instance;
}


ngx_int_t
ngx_tlsresume_attach(ngx_conf_t *cf, ngx_tlsresume_instance_t *instance,
    ngx_ssl_t *ssl, ngx_tlsresume_place_t *place)
{
    if (instance == &ngx_tlsresume_none) {
        return NGX_OK;
    }

    ERR_clear_error();

    if (tlsresume_attach(instance->handle, ssl->ctx)) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "tlsresume: %s, for server \"%V\" in %s:%ui",
                  ngx_tlsresume_reason(), &place->name, place->file,
                  place->line);
    ERR_clear_error();

    return NGX_ERROR;
}


void
ngx_tlsresume_commit(ngx_cycle_t *cycle)
{
    ngx_tlsresume_instance_t  *instance;

    for (instance = ngx_tlsresume_state.instances;
         instance;
         instance = instance->next)
    {
        if (instance->cycle == cycle && !instance->in_force) {
            ngx_tlsresume_put_in_force(cycle, instance);
        }
    }

    ngx_tlsresume_free_unused();
}


static void
ngx_tlsresume_put_in_force(ngx_cycle_t *cycle,
    ngx_tlsresume_instance_t *instance)
{
    ngx_tlsresume_instance_t  *old;

    old = ngx_tlsresume_find_in_force(&instance->name);

    instance->in_force = 1;

    if (old == NULL) {
        return;
    }

    old->in_force = 0;

    if (!ngx_tlsresume_loses(old->handle, instance->handle)) {
        return;
    }

    ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                  "tlsresume: \"%V\" changed, and its memory with it: "
                  "stored sessions are lost, "
                  "without memory.path tickets too",
                  &instance->name);
}


/*
 * Whether something is in the old memory and the new memory is another one.
 * Counters belong to the memory and only grow, so those of one memory do so
 * too if they are read through either handle by turns, whoever is counting.
 */

static ngx_uint_t
ngx_tlsresume_loses(TLSRESUME *old, TLSRESUME *new)
{
    uint64_t         a, b, c;
    ngx_uint_t       i, used, other;
    TLSRESUME_STATS  before, between, after;

    static const size_t  counters[] = {
        offsetof(TLSRESUME_STATS, tickets_issued),
        offsetof(TLSRESUME_STATS, sessions_stored),
        offsetof(TLSRESUME_STATS, tickets_accepted_current),
        offsetof(TLSRESUME_STATS, sessions_hit),
        offsetof(TLSRESUME_STATS, sessions_missed_absent),
        offsetof(TLSRESUME_STATS, rotations)
    };

    if (!tlsresume_stats(old, &before, sizeof(before))
        || !tlsresume_stats(new, &between, sizeof(between))
        || !tlsresume_stats(old, &after, sizeof(after)))
    {
        ERR_clear_error();
        return 0;
    }

    used = before.tickets_issued || before.sessions_stored;
    other = 0;

    for (i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
        a = *(uint64_t *) ((u_char *) &before + counters[i]);
        b = *(uint64_t *) ((u_char *) &between + counters[i]);
        c = *(uint64_t *) ((u_char *) &after + counters[i]);

        if (b < a || b > c) {
            other = 1;
        }
    }

    return used && other;
}


/*
 * A file that is not named any more is kept: "off" for one reload forgets
 * nobody.  It goes as soon as another text of the file is in force.
 */

static void
ngx_tlsresume_free_unused(void)
{
    ngx_tlsresume_instance_t  *instance, **link;

    link = &ngx_tlsresume_state.instances;

    while (*link) {
        instance = *link;

        if (instance->references == 0 && !instance->in_force) {
            *link = instance->next;
            ngx_tlsresume_free(instance);
            continue;
        }

        link = &instance->next;
    }
}


/* contexts that are still attached have references of their own */

static void
ngx_tlsresume_free(ngx_tlsresume_instance_t *instance)
{
    tlsresume_free(instance->handle);
    ngx_free(instance);
}


void
ngx_tlsresume_announce(ngx_cycle_t *cycle, ngx_tlsresume_instance_t *instance,
    ngx_tlsresume_place_t *place)
{
    static ngx_str_t  environment = ngx_string("the environment");

    if (instance == &ngx_tlsresume_none) {
        return;
    }

    ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0,
                  "tlsresume: attached server \"%V\" in %s:%ui, "
                  "configured by %V",
                  &place->name, place->file, place->line,
                  instance->name.len ? &instance->name : &environment);
}


ngx_int_t
ngx_tlsresume_metrics(ngx_tlsresume_instance_t *instance, ngx_pool_t *pool,
    ngx_log_t *log, ngx_str_t *text)
{
    size_t  len;

    ERR_clear_error();

    if (!tlsresume_metrics(instance->handle, NULL, &len)) {
        goto failed;
    }

    /* the workers go on counting: room for some more digits */

    len += 64;

    text->data = ngx_pnalloc(pool, len);
    if (text->data == NULL) {
        return NGX_ERROR;
    }

    if (!tlsresume_metrics(instance->handle, (char *) text->data, &len)) {
        goto failed;
    }

    text->len = len - 1;

    return NGX_OK;

failed:

    ngx_log_error(NGX_LOG_ERR, log, 0, "tlsresume: %s",
                  ngx_tlsresume_reason());
    ERR_clear_error();

    return NGX_ERROR;
}


static void
ngx_tlsresume_log(int level, const char *message, void *arg)
{
    static const ngx_uint_t  levels[] = {
        NGX_LOG_ERR,
        NGX_LOG_ERR,
        NGX_LOG_WARN,
        NGX_LOG_INFO,
        NGX_LOG_DEBUG
    };

    if (level < 1 || level > 4) {
        level = 1;
    }

    ngx_log_error(levels[level], ngx_cycle->log, 0, "tlsresume: %s", message);
}


/* the library's own text, without OpenSSL's numbers around it */

static const char *
ngx_tlsresume_reason(void)
{
    int            flags;
    const char    *text;
    unsigned long  error;

    error = ERR_peek_error_data(&text, &flags);

    if (text && *text && (flags & ERR_TXT_STRING)) {
        return text;
    }

    text = ERR_reason_error_string(error);

    return text ? text : "unknown error";
}
