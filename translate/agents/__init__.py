"""loquent under the field's evaluation programs, SimulEval and simulstream; neither is needed otherwise."""
