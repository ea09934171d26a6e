
/*
 * TLS sessions of http servers that resume in every worker, after a reload and
 * in other servers: attaches libtlsresume to the contexts of
 * ngx_http_ssl_module.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <ngx_tlsresume.h>


typedef struct {
    ngx_flag_t                 status;
} ngx_http_tlsresume_loc_conf_t;


typedef ngx_int_t (*ngx_http_tlsresume_addr_pt)(ngx_conf_t *cf,
    ngx_http_conf_addr_t *addr);


static void *ngx_http_tlsresume_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_tlsresume_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_tlsresume_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_tlsresume_status_handler(ngx_http_request_t *r);

static ngx_int_t ngx_http_tlsresume_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_tlsresume_each_address(ngx_conf_t *cf,
    ngx_http_tlsresume_addr_pt handler);
static ngx_int_t ngx_http_tlsresume_attach_default(ngx_conf_t *cf,
    ngx_http_conf_addr_t *addr);
static ngx_int_t ngx_http_tlsresume_attach_all(ngx_conf_t *cf,
    ngx_http_conf_addr_t *addr);
static ngx_int_t ngx_http_tlsresume_attach(ngx_conf_t *cf,
    ngx_http_conf_addr_t *addr, ngx_http_core_srv_conf_t *cscf);
static ngx_int_t ngx_http_tlsresume_check_default(ngx_conf_t *cf,
    ngx_http_conf_addr_t *addr);
static ngx_uint_t ngx_http_tlsresume_is_wanted(ngx_http_conf_addr_t *addr,
    ngx_http_core_srv_conf_t *cscf);
static ngx_uint_t ngx_http_tlsresume_is_tls(ngx_http_conf_addr_t *addr,
    ngx_http_ssl_srv_conf_t *sscf);
static void ngx_http_tlsresume_place(ngx_http_core_srv_conf_t *cscf,
    ngx_tlsresume_place_t *place);
static ngx_int_t ngx_http_tlsresume_init_module(ngx_cycle_t *cycle);


static ngx_command_t  ngx_http_tlsresume_commands[] = {

    { ngx_string("tlsresume"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_CONF_TAKE1,
      ngx_tlsresume_set_slot,
      NGX_HTTP_SRV_CONF_OFFSET,
      offsetof(ngx_tlsresume_srv_conf_t, instance),
      NULL },

    { ngx_string("tlsresume_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_tlsresume_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tlsresume_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_tlsresume_init,               /* postconfiguration */

    ngx_tlsresume_create_main_conf,        /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_tlsresume_create_srv_conf,         /* create server configuration */
    ngx_tlsresume_merge_srv_conf,          /* merge server configuration */

    ngx_http_tlsresume_create_loc_conf,    /* create location configuration */
    ngx_http_tlsresume_merge_loc_conf      /* merge location configuration */
};


ngx_module_t  ngx_http_tlsresume_module = {
    NGX_MODULE_V1,
    &ngx_http_tlsresume_module_ctx,        /* module context */
    ngx_http_tlsresume_commands,           /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_tlsresume_init_module,        /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_http_tlsresume_create_loc_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_tlsresume_loc_conf_t));
}


static char *
ngx_http_tlsresume_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_tlsresume_loc_conf_t *conf = child;

    ngx_http_core_srv_conf_t  *cscf;
    ngx_tlsresume_srv_conf_t  *tscf;

    tscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_tlsresume_module);

    if (!conf->status || tscf->instance) {
        return NGX_CONF_OK;
    }

    cscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"tlsresume_status\" has nothing to show: "
                  "\"tlsresume\" is off for the server in %s:%ui",
                  cscf->file_name, cscf->line);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_tlsresume_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tlsresume_loc_conf_t *tlcf = conf;

    ngx_http_core_loc_conf_t  *clcf;

    if (tlcf->status) {
        return "is duplicate";
    }

    tlcf->status = 1;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_tlsresume_status_handler;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_tlsresume_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                  rc;
    ngx_str_t                  text;
    ngx_buf_t                 *b;
    ngx_chain_t                out;
    ngx_tlsresume_srv_conf_t  *tscf;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    tscf = ngx_http_get_module_srv_conf(r, ngx_http_tlsresume_module);

    rc = ngx_tlsresume_metrics(tscf->instance, r->pool, r->connection->log,
                               &text);
    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_str_set(&r->headers_out.content_type, "text/plain; version=0.0.4");
    r->headers_out.content_type_len = sizeof("text/plain") - 1;
    r->headers_out.content_type_lowcase = NULL;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = text.len;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->pos = text.data;
    b->last = text.data + text.len;
    b->memory = 1;
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


/*
 * The default server of an address is the one whose context accepts; the
 * others are switched to.  The library can tell the first 512 contexts apart,
 * and that is of use for contexts that accept: they come first.
 */

static ngx_int_t
ngx_http_tlsresume_init(ngx_conf_t *cf)
{
    if (ngx_http_tlsresume_each_address(cf, ngx_http_tlsresume_attach_default)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_tlsresume_each_address(cf, ngx_http_tlsresume_attach_all)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_process == NGX_PROCESS_SIGNALLER) {
        return NGX_OK;
    }

    return ngx_http_tlsresume_each_address(cf,
                                           ngx_http_tlsresume_check_default);
}


static ngx_int_t
ngx_http_tlsresume_each_address(ngx_conf_t *cf,
    ngx_http_tlsresume_addr_pt handler)
{
    ngx_uint_t                  p, a;
    ngx_http_conf_addr_t       *addr;
    ngx_http_conf_port_t       *port;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    if (cmcf->ports == NULL) {
        return NGX_OK;
    }

    port = cmcf->ports->elts;

    for (p = 0; p < cmcf->ports->nelts; p++) {
        addr = port[p].addrs.elts;

        for (a = 0; a < port[p].addrs.nelts; a++) {

            if (handler(cf, &addr[a]) != NGX_OK) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tlsresume_attach_default(ngx_conf_t *cf, ngx_http_conf_addr_t *addr)
{
    return ngx_http_tlsresume_attach(cf, addr, addr->default_server);
}


static ngx_int_t
ngx_http_tlsresume_attach_all(ngx_conf_t *cf, ngx_http_conf_addr_t *addr)
{
    ngx_uint_t                  s;
    ngx_http_core_srv_conf_t  **cscfp;

    cscfp = addr->servers.elts;

    for (s = 0; s < addr->servers.nelts; s++) {

        if (ngx_http_tlsresume_attach(cf, addr, cscfp[s]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* a server that listens on several addresses is met several times */

static ngx_int_t
ngx_http_tlsresume_attach(ngx_conf_t *cf, ngx_http_conf_addr_t *addr,
    ngx_http_core_srv_conf_t *cscf)
{
    ngx_tlsresume_place_t      place;
    ngx_http_ssl_srv_conf_t   *sscf;
    ngx_tlsresume_srv_conf_t  *tscf;

    sscf = cscf->ctx->srv_conf[ngx_http_ssl_module.ctx_index];
    tscf = cscf->ctx->srv_conf[ngx_http_tlsresume_module.ctx_index];

    if (tscf->attached || !ngx_http_tlsresume_is_wanted(addr, cscf)) {
        return NGX_OK;
    }

    tscf->attached = 1;

    ngx_http_tlsresume_place(cscf, &place);

    return ngx_tlsresume_attach(cf, tscf->instance, &sscf->ssl, &place);
}


/*
 * OpenSSL looks for session ids in the context that accepts, so those that the
 * other servers of the address hand out would be found nowhere.
 */

static ngx_int_t
ngx_http_tlsresume_check_default(ngx_conf_t *cf, ngx_http_conf_addr_t *addr)
{
    ngx_uint_t                  s;
    ngx_http_core_srv_conf_t  **cscfp;

    if (ngx_http_tlsresume_is_wanted(addr, addr->default_server)) {
        return NGX_OK;
    }

    cscfp = addr->servers.elts;

    for (s = 0; s < addr->servers.nelts; s++) {

        if (!ngx_http_tlsresume_is_wanted(addr, cscfp[s])) {
            continue;
        }

        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "tlsresume: the default server of %V is not attached, "
                      "as server \"%V\" in %s:%ui is: "
                      "TLS 1.2 session ids are not shared there",
                      &addr->opt.addr_text, &cscfp[s]->server_name,
                      cscfp[s]->file_name, cscfp[s]->line);

        return NGX_OK;
    }

    return NGX_OK;
}


/* a server without TLS has a context too if a certificate is inherited */

static ngx_uint_t
ngx_http_tlsresume_is_wanted(ngx_http_conf_addr_t *addr,
    ngx_http_core_srv_conf_t *cscf)
{
    ngx_http_ssl_srv_conf_t   *sscf;
    ngx_tlsresume_srv_conf_t  *tscf;

    sscf = cscf->ctx->srv_conf[ngx_http_ssl_module.ctx_index];
    tscf = cscf->ctx->srv_conf[ngx_http_tlsresume_module.ctx_index];

    return tscf->instance != NULL && sscf->ssl.ctx != NULL
           && ngx_http_tlsresume_is_tls(addr, sscf);
}


static ngx_uint_t
ngx_http_tlsresume_is_tls(ngx_http_conf_addr_t *addr,
    ngx_http_ssl_srv_conf_t *sscf)
{
    if (addr->opt.ssl) {
        return 1;
    }

#if (NGX_HTTP_V3)
    if (addr->opt.quic) {
        return 1;
    }
#endif

#if (nginx_version < 1025001)
    /* the directive "ssl" */

    return sscf->enable;
#else
    return 0;
#endif
}


static void
ngx_http_tlsresume_place(ngx_http_core_srv_conf_t *cscf,
    ngx_tlsresume_place_t *place)
{
    place->name = cscf->server_name;
    place->file = cscf->file_name;
    place->line = cscf->line;
}


static ngx_int_t
ngx_http_tlsresume_init_module(ngx_cycle_t *cycle)
{
    ngx_uint_t                  i;
    ngx_tlsresume_place_t       place;
    ngx_http_core_srv_conf_t  **cscfp;
    ngx_http_core_main_conf_t  *cmcf;
    ngx_tlsresume_srv_conf_t   *tscf;

    cmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_core_module);

    if (cmcf == NULL) {
        return NGX_OK;
    }

    ngx_tlsresume_commit(cycle);

    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        tscf = cscfp[i]->ctx->srv_conf[ngx_http_tlsresume_module.ctx_index];

        if (tscf->attached) {
            ngx_http_tlsresume_place(cscfp[i], &place);
            ngx_tlsresume_announce(cycle, tscf->instance, &place);
        }
    }

    return NGX_OK;
}
