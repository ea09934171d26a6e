
/*
 * TLS sessions of stream servers that resume in every worker, after a reload
 * and in other servers: attaches libtlsresume to the contexts of
 * ngx_stream_ssl_module.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_stream.h>

#include <ngx_tlsresume.h>


static ngx_int_t ngx_stream_tlsresume_init(ngx_conf_t *cf);
static void ngx_stream_tlsresume_place(ngx_stream_core_srv_conf_t *cscf,
    ngx_tlsresume_place_t *place);
static ngx_int_t ngx_stream_tlsresume_init_module(ngx_cycle_t *cycle);


static ngx_str_t  ngx_stream_tlsresume_name = ngx_string("stream");


static ngx_command_t  ngx_stream_tlsresume_commands[] = {

    { ngx_string("tlsresume"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_tlsresume_set_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_tlsresume_srv_conf_t, instance),
      NULL },

      ngx_null_command
};


static ngx_stream_module_t  ngx_stream_tlsresume_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_stream_tlsresume_init,             /* postconfiguration */

    ngx_tlsresume_create_main_conf,        /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_tlsresume_create_srv_conf,         /* create server configuration */
    ngx_tlsresume_merge_srv_conf           /* merge server configuration */
};


ngx_module_t  ngx_stream_tlsresume_module = {
    NGX_MODULE_V1,
    &ngx_stream_tlsresume_module_ctx,      /* module context */
    ngx_stream_tlsresume_commands,         /* module directives */
    NGX_STREAM_MODULE,                     /* module type */
    NULL,                                  /* init master */
    ngx_stream_tlsresume_init_module,      /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_stream_tlsresume_init(ngx_conf_t *cf)
{
    ngx_uint_t                    i;
    ngx_stream_ssl_conf_t        *sscf;
    ngx_tlsresume_place_t         place;
    ngx_stream_core_srv_conf_t  **cscfp;
    ngx_stream_core_main_conf_t  *cmcf;
    ngx_tlsresume_srv_conf_t     *tscf;

    cmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_core_module);

    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        sscf = cscfp[i]->ctx->srv_conf[ngx_stream_ssl_module.ctx_index];
        tscf = cscfp[i]->ctx->srv_conf[ngx_stream_tlsresume_module.ctx_index];

        if (tscf->instance == NULL || sscf->ssl.ctx == NULL) {
            continue;
        }

        ngx_stream_tlsresume_place(cscfp[i], &place);

        if (ngx_tlsresume_attach(cf, tscf->instance, &sscf->ssl, &place)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static void
ngx_stream_tlsresume_place(ngx_stream_core_srv_conf_t *cscf,
    ngx_tlsresume_place_t *place)
{
    place->name = ngx_stream_tlsresume_name;
    place->file = cscf->file_name;
    place->line = cscf->line;
}


static ngx_int_t
ngx_stream_tlsresume_init_module(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_stream_ssl_conf_t        *sscf;
    ngx_tlsresume_place_t         place;
    ngx_stream_core_srv_conf_t  **cscfp;
    ngx_stream_core_main_conf_t  *cmcf;
    ngx_tlsresume_srv_conf_t     *tscf;

    cmcf = ngx_stream_cycle_get_module_main_conf(cycle,
                                                 ngx_stream_core_module);
    if (cmcf == NULL) {
        return NGX_OK;
    }

    ngx_tlsresume_commit(cycle);

    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        sscf = cscfp[i]->ctx->srv_conf[ngx_stream_ssl_module.ctx_index];
        tscf = cscfp[i]->ctx->srv_conf[ngx_stream_tlsresume_module.ctx_index];

        if (tscf->instance && sscf->ssl.ctx) {
            ngx_stream_tlsresume_place(cscfp[i], &place);
            ngx_tlsresume_announce(cycle, tscf->instance, &place);
        }
    }

    return NGX_OK;
}
