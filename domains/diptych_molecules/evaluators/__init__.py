"""Evaluators of molecules: frozen probes and real fine-tuning, for one task or many, on one split or several."""
