{{ reference_rate_spans(ref('stg_ecb__reference_rates')) }}
