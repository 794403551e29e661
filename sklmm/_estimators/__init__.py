"""The estimators' shared machinery: input, fit and predict, warnings, reports."""
