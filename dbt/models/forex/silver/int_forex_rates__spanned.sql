{{ reference_rate_spans(ref('stg_forex__reference_rates'), timestamps=['loaded_at']) }}
