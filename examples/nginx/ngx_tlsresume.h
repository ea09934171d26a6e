
/*
 * What the http and the stream module share.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */


#ifndef _NGX_TLSRESUME_H_INCLUDED_
#define _NGX_TLSRESUME_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <tlsresume.h>


typedef struct ngx_tlsresume_instance_s  ngx_tlsresume_instance_t;


/* of a server block */

typedef struct {
    ngx_tlsresume_instance_t  *instance;
    unsigned                   attached:1;
} ngx_tlsresume_srv_conf_t;


/* a server block, for messages */

typedef struct {
    ngx_str_t                  name;
    u_char                    *file;
    ngx_uint_t                 line;
} ngx_tlsresume_place_t;


/*
 * There is no main configuration.  It is made once for each cycle, before any
 * directive: from then on the library's instances live as long as the cycle.
 */

void *ngx_tlsresume_create_main_conf(ngx_conf_t *cf);

void *ngx_tlsresume_create_srv_conf(ngx_conf_t *cf);
char *ngx_tlsresume_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child);


/*
 * "tlsresume on | off | file": a slot of type ngx_tlsresume_instance_t *, which
 * is NGX_CONF_UNSET_PTR at first and NULL for "off".
 */

char *ngx_tlsresume_set_slot(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


/* after the SSL modules configured their contexts, as they merge */

ngx_int_t ngx_tlsresume_attach(ngx_conf_t *cf,
    ngx_tlsresume_instance_t *instance, ngx_ssl_t *ssl,
    ngx_tlsresume_place_t *place);


/* once the cycle is in force; may be called again */

void ngx_tlsresume_commit(ngx_cycle_t *cycle);

void ngx_tlsresume_announce(ngx_cycle_t *cycle,
    ngx_tlsresume_instance_t *instance, ngx_tlsresume_place_t *place);


/* Prometheus text */

ngx_int_t ngx_tlsresume_metrics(ngx_tlsresume_instance_t *instance,
    ngx_pool_t *pool, ngx_log_t *log, ngx_str_t *text);


#endif /* _NGX_TLSRESUME_H_INCLUDED_ */
