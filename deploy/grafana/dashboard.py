"""Writes the dashboard: deploy/grafana/dashboard.py > deploy/grafana/schemabridge.json"""

import json
import sys

SELECTED = 'job=~"$job",instance=~"$instance"'
UPSTREAM = SELECTED + ',upstream=~"$upstream"'

ROWS = [
    ("Who needs what", [
        ("Clients by what they read", "short", "sum by (class) (rate(schemabridge_client_capability_total{%s}[$__rate_interval]))" % SELECTED, "{{class}}", 8),
        ("Translations", "short", "sum by (from, to) (rate(schemabridge_translations_total{%s,result=\"ok\"}[$__rate_interval]))" % UPSTREAM, "{{from}} to {{to}}", 8),
        ("Not translated", "short", "sum by (from, to, result) (rate(schemabridge_translations_total{%s,result!=\"ok\"}[$__rate_interval]))" % UPSTREAM, "{{from}} to {{to}}: {{result}}", 8),
    ]),
    ("Requests", [
        ("Requests", "reqps", "sum by (route) (rate(schemabridge_http_requests_total{%s}[$__rate_interval]))" % UPSTREAM, "{{route}}", 8),
        ("Answers", "reqps", "sum by (code) (rate(schemabridge_http_requests_total{%s}[$__rate_interval]))" % UPSTREAM, "{{code}}", 8),
        ("Time to the first byte, 99 of 100", "s", "histogram_quantile(0.99, sum by (le, route) (rate(schemabridge_http_request_ttfb_seconds_bucket{%s}[$__rate_interval])))" % UPSTREAM, "{{route}}", 8),
        ("Time to the last byte, 99 of 100", "s", "histogram_quantile(0.99, sum by (le, route) (rate(schemabridge_http_request_duration_seconds_bucket{%s}[$__rate_interval])))" % UPSTREAM, "{{route}}", 8),
        ("Translations take, 99 of 100", "s", "histogram_quantile(0.99, sum by (le, from, to) (rate(schemabridge_translation_duration_seconds_bucket{%s}[$__rate_interval])))" % SELECTED, "{{from}} to {{to}}", 8),
        ("Bytes to clients", "Bps", "sum by (route) (rate(schemabridge_http_response_bytes_total{%s}[$__rate_interval]))" % UPSTREAM, "{{route}}", 8),
        ("Under way", "short", "sum by (route) (schemabridge_http_requests_in_flight{%s})" % SELECTED, "{{route}}", 8),
        ("Connections", "short", "sum by (instance) (schemabridge_connections_open{%s})" % SELECTED, "{{instance}}", 8),
        ("Connections that were cut", "short", "sum by (reason) (rate(schemabridge_connections_cut_total{%s}[$__rate_interval]))" % SELECTED, "{{reason}}", 8),
    ]),
    ("Registries", [
        ("Requests to them", "reqps", "sum by (upstream, operation) (rate(schemabridge_upstream_requests_total{%s}[$__rate_interval]))" % UPSTREAM, "{{upstream}}: {{operation}}", 8),
        ("Until they answer, 99 of 100", "s", "histogram_quantile(0.99, sum by (le, upstream) (rate(schemabridge_upstream_request_duration_seconds_bucket{%s}[$__rate_interval])))" % UPSTREAM, "{{upstream}}", 8),
        ("What goes wrong", "short", "sum by (upstream, type) (rate(schemabridge_upstream_errors_total{%s}[$__rate_interval]))" % UPSTREAM, "{{upstream}}: {{type}}", 8),
        ("Left alone (2), tried (1)", "short", "max by (upstream) (schemabridge_upstream_breaker_state{%s})" % UPSTREAM, "{{upstream}}", 8),
        ("Requests that they allow still", "short", "min by (upstream) (schemabridge_upstream_rate_limit_remaining{%s})" % UPSTREAM, "{{upstream}}", 8),
        ("Since they last answered well", "s", "time() - max by (upstream) (schemabridge_upstream_last_success_timestamp_seconds{%s})" % UPSTREAM, "{{upstream}}", 8),
        ("Bytes from and to them", "Bps", "sum by (upstream, direction) (rate(schemabridge_upstream_bytes_total{%s}[$__rate_interval]))" % UPSTREAM, "{{upstream}}: {{direction}}", 8),
        ("Redirects", "short", "sum by (upstream, action) (rate(schemabridge_redirects_total{%s}[$__rate_interval]))" % UPSTREAM, "{{upstream}}: {{action}}", 8),
        ("Until the gateway's credentials end", "s", "min by (upstream) (schemabridge_upstream_credential_expiry_timestamp_seconds{%s}) - time()" % UPSTREAM, "{{upstream}}", 8),
    ]),
    ("Layers", [
        ("In work", "short", "sum by (instance) (schemabridge_layers_in_work{%s})" % SELECTED, "{{instance}}", 8),
        ("Wanted", "short", "sum by (result) (rate(schemabridge_layer_reads_total{%s}[$__rate_interval]))" % SELECTED, "{{result}}", 8),
        ("Made in the place of others", "Bps", "sum by (from, to) (rate(schemabridge_transcode_bytes_total{%s}[$__rate_interval]))" % SELECTED, "{{from}} to {{to}}", 8),
    ]),
    ("Memory and store", [
        ("What is remembered", "short", "sum by (cache, result) (rate(schemabridge_cache_requests_total{%s}[$__rate_interval]))" % SELECTED, "{{cache}}: {{result}}", 8),
        ("Derived digests that were asked for", "short", "sum by (result) (rate(schemabridge_derived_digest_requests_total{%s}[$__rate_interval]))" % UPSTREAM, "{{result}}", 8),
        ("Operations of the store", "short", "sum by (operation, result) (rate(schemabridge_store_operations_total{%s}[$__rate_interval]))" % SELECTED, "{{operation}}: {{result}}", 8),
        ("Documents in memory", "bytes", "sum by (cache) (schemabridge_cache_bytes{%s})" % SELECTED, "{{cache}}", 8),
        ("Blobs that are kept", "bytes", "sum by (instance) (schemabridge_blob_cache_bytes{%s})" % SELECTED, "{{instance}}", 8),
        ("Blobs that were asked for", "short", "sum by (result) (rate(schemabridge_blob_cache_requests_total{%s}[$__rate_interval]))" % SELECTED, "{{result}}", 8),
    ]),
    ("The process", [
        ("Memory", "bytes", "sum by (instance) (process_resident_memory_bytes{%s})" % SELECTED, "{{instance}}", 8),
        ("Processor", "short", "sum by (instance) (rate(process_cpu_seconds_total{%s}[$__rate_interval]))" % SELECTED, "{{instance}}", 8),
        ("Open files, of those that it may have", "percentunit", "max by (instance) (process_open_fds{%s} / process_max_fds{%s})" % (SELECTED, SELECTED), "{{instance}}", 8),
        ("Until certificates expire", "s", "min by (certificate) (schemabridge_tls_cert_not_after_timestamp_seconds{%s}) - time()" % SELECTED, "{{certificate}}", 12),
        ("Since the configuration was last read well", "s", "time() - max by (instance) (schemabridge_config_last_reload_success_timestamp_seconds{%s})" % SELECTED, "{{instance}}", 12),
    ]),
]


def panels():
    number, top = 0, 0
    for title, row in ROWS:
        number += 1
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": 24, "x": 0, "y": top}}
        top, left = top + 1, 0
        for name, unit, expression, legend, width in row:
            number += 1
            yield {
                "id": number, "type": "timeseries", "title": name, "gridPos": {"h": 8, "w": width, "x": left, "y": top},
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}, "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
                "targets": [{"refId": "A", "expr": expression, "legendFormat": legend}],
            }
            left += width
            if left >= 24:
                top, left = top + 8, 0
        top += 8 if left else 0


def choice(name, label, query):
    return {"name": name, "label": label, "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"}, "query": query,
            "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


DASHBOARD = {
    "title": "schemabridge", "uid": "schemabridge", "tags": ["registry"], "schemaVersion": 39, "version": 1, "editable": True,
    "time": {"from": "now-6h", "to": "now"}, "refresh": "30s", "timezone": "browser", "annotations": {"list": []},
    "templating": {"list": [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        choice("job", "Job", "label_values(schemabridge_build_info, job)"),
        choice("instance", "Instance", "label_values(schemabridge_build_info{job=~\"$job\"}, instance)"),
        choice("upstream", "Registry", "label_values(schemabridge_upstream_requests_total{job=~\"$job\"}, upstream)"),
    ]},
    "panels": list(panels()),
}

if __name__ == "__main__":
    json.dump(DASHBOARD, sys.stdout, indent=2)
    sys.stdout.write("\n")
