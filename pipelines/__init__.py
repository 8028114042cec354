"""Batch pipelines around spae_core: plan, stages, engines, exactly-once commits."""
