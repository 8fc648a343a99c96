"""Where each row of the migration page's tables of differences is put to the test.

The key is the first cell of a row; where that is empty, the second. The value is the name of a
test in a file of `tests`, or an expression over the page's own examples that has to be true.
"""

from __future__ import annotations

FIRST = "influence/test_first_order.py::test_"
SECOND = "influence/test_second_order.py::test_"
EXACT = "ihvp/test_exact.py::test_"
STRATEGIES = "ihvp/test_strategies.py::test_"
CONTRACT = "calculators/test_contract.py::test_"
LOSSES = "model/test_losses.py::test_"
L2 = "rps/test_l2.py::test_"
SAMPLES = "boundary_based/test_sample_boundary.py::test_"
WEIGHTS = "boundary_based/test_weights_boundary.py::test_"
MISLABELING = "benchmark/test_mislabeling.py::test_"
FACTORIES = "benchmark/test_factories.py::test_"
CIFAR = "benchmark/test_cifar10.py::test_"

ON_PURPOSE = {
    "losses": f"{LOSSES}any_reduction_of_a_keras_loss_is_set_aside",
    "no `loss_function` given": f"{LOSSES}a_model_without_a_loss_says_how_to_give_one",
    "`start_layer=None`": (
        "model/test_weight_selection.py::test_the_last_layer_with_weights_is_the_default"
    ),
    "batch normalisation": (
        "model/test_weight_selection.py::test_batch_statistics_cannot_be_watched"
    ),
    "damping": f"{STRATEGIES}scores_equal_those_of_dense_algebra",
    "regularisers of the model": (
        f"{FIRST}the_predicted_change_of_loss_has_the_regularisers_gradient_and_one_over_n"
    ),
    "sizes of datasets": (
        "utils/test_datasets.py::test_examples_are_counted_and_numbered_whatever_the_pipeline"
    ),
    "`n_samples_for_hessian`": (f"{EXACT}a_sample_of_the_data_is_what_the_curvature_is_taken_over"),
    "`shuffle_buffer_size`": (
        "FirstOrderInfluenceCalculator(influence_model, train_dataset, shuffle_buffer_size=3)"
    ),
    "labels": "test_regressions.py::test_integer_labels_meet_losses_written_for_floats",
    "labels that do not fit the outputs": (
        f"{LOSSES}labels_of_the_wrong_shape_name_their_shape_and_the_outputs"
    ),
    "losses per position (time, pixels)": (
        f"{LOSSES}losses_with_a_time_axis_are_added_up_or_averaged"
    ),
    "a partial last batch of queries in `top_k`": (
        f"{CONTRACT}top_k_per_query_equals_the_full_sort"
    ),
    "datasets that change their order": (
        "calculators/test_passes.py::"
        "test_a_dataset_that_changes_its_order_is_refused_in_its_first_pass"
    ),
    "sizes of the two groups in `estimate_influence_values_group`": (
        "calculator.estimate_influence_values_group(train_dataset.take(2), queries).shape == ()"
    ),
    "ids": f"{CONTRACT}ids_come_from_the_user_where_given",
    "bad arguments": f"{CONTRACT}data_that_cannot_be_scored_are_refused",
}

STRATEGIES_OF_THE_INVERSE = {
    "`extractor_layer`, `feature_extractor`": (
        f"{STRATEGIES}influenciaes_order_of_arguments_works"
    ),
    "`ExactIHVP`: damping": (
        f"{EXACT}without_damping_it_is_the_pseudo_inverse_with_the_stated_cut_off"
    ),
    "`ExactIHVP`: cut-off": (
        "ihvp/test_exact_scaling.py::"
        "test_curvature_that_is_lost_in_rounding_is_said_with_what_it_carries"
    ),
    "`ConjugateGradientDescentIHVP`: damping": (
        "ConjugateGradientDescentIHVP(influence_model, -1, train_dataset).config['damping'] "
        "== 'auto'"
    ),
    "`LissaIHVP`: `damping`": "linalg/test_neumann.py::test_damping_times_scale_is_another_system",
    "`LissaIHVP`: `scale`": f"{STRATEGIES}lissa_with_too_small_a_scale_reports_divergence",
    "`LissaIHVP`, `ConjugateGradientDescentIHVP`: `n_opt_iters`": (
        "ihvp/test_iterations.py::test_lissa_takes_as_many_steps_as_it_is_given"
    ),
    "right-hand sides": (
        "linalg/test_conjugate_gradients.py::test_residuals_are_those_of_the_solutions_returned"
    ),
    "no convergence": f"{STRATEGIES}what_did_not_converge_is_reported_with_a_remedy",
    "the three factories": (
        f"{STRATEGIES}the_factories_of_influenciae_build_strategies_and_serve_as_calculators"
    ),
}

METHODS = {
    "`SecondOrderInfluenceCalculator`": (
        f"{SECOND}influence_of_groups_on_queries_equals_dense_algebra"
    ),
    "regularisers left out of the second term": (
        f"{SECOND}predicted_changes_equal_dense_algebra_and_a_moved_copy_of_the_model"
    ),
    "groups of equal size, a size that a partial batch makes wrong": (
        f"{SECOND}a_group_has_the_same_values_alone_as_among_others"
    ),
    "a group of all n examples divides by zero": (
        f"{SECOND}a_group_of_the_whole_training_set_is_refused"
    ),
    "builds the Hessian of the group, and inverts it twice": (
        f"{SECOND}gathered_products_of_a_last_layer_equal_its_closed_form"
    ),
    "LiSSA is rebuilt without its settings": (
        f"{SECOND}the_damping_of_each_layer_is_read_off_a_strategy"
    ),
    "`ArnoldiInfluenceCalculator`": (
        "influence/test_arnoldi.py::test_the_smallest_eigenvalues_are_not_what_is_kept"
    ),
    "`force_hermitian=False` uses the transpose for the inverse": (
        "linalg/test_low_rank.py::test_left_eigenvectors_invert_an_unsymmetric_operator"
    ),
    "single Gram-Schmidt, no early stop, no seed": (
        "linalg/test_arnoldi.py::test_an_invariant_subspace_gives_the_pairs_that_it_has"
    ),
    "`RepresenterPointL2`, `RepresenterPointLJE`: several classes": (
        f"{L2}a_score_is_the_part_of_the_querys_own_class"
    ),
    "last layer of both": (
        "rps/test_head.py::test_features_weights_and_activation_rebuild_the_outputs"
    ),
    "`RepresenterPointL2`: fit": f"{L2}softmax_regression_is_what_scipy_finds",
    "`RepresenterPointL2`: α": (
        f"{L2}the_head_is_stationary_and_its_logits_are_sums_of_alpha_times_the_kernel"
    ),
    "`RepresenterPointLJE`": (
        "rps/test_lje.py::test_the_parts_equal_dense_algebra_and_add_up_to_the_linearised_logits"
    ),
    "one logit for two classes": f"{L2}the_class_may_be_an_index",
    "`TracIn(models, learning_rates)`": (
        "trac_in/test_tracin.py::test_files_give_what_live_models_give_however_the_data_are_cut"
    ),
    "counts checked by `assert`": "trac_in/test_tracin.py::test_wrong_arguments_are_refused",
    "boundary methods: scores": f"{SAMPLES}one_output_is_at_its_distance_from_the_hyperplane",
    "one example at a time": (
        f"{WEIGHTS}scores_do_not_depend_on_how_many_examples_are_taken_at_a_time"
    ),
    "steps on the model's outputs, softmax included; one output fails": (
        f"{SAMPLES}probabilities_from_an_unseen_softmax_count_as_their_logits"
    ),
    "an example that does not arrive looks like any other": (
        f"{SAMPLES}examples_that_do_not_arrive_are_reported_and_keep_how_far_they_came"
    ),
    "`eps` is absolute": f"{SAMPLES}settings_without_meaning_are_refused",
    "`WeightsBoundaryCalculator`": f"{WEIGHTS}a_search_leaves_no_trace_in_the_model",
    "`norm_type` is used both as the norm and as its dual, right for 2 only": (
        "boundary_based/test_norms.py::test_length_and_dual_are_the_norms_of_numpy"
    ),
    "all trainable weights change": f"{WEIGHTS}a_part_of_the_last_layer_is_known_too",
    "`FirstOrderInfluenceCalculator(normalize=True)`": (
        f"{FIRST}normalised_influence_divides_by_the_norm_of_the_training_examples_vector"
    ),
}

BENCHMARK = {
    "`roc`": f"{MISLABELING}the_areas_are_those_of_scikit_learn",
    "flipped labels": f"{MISLABELING}the_noise_is_the_same_on_every_pass_and_the_images_stay",
    "`bench`": f"{MISLABELING}the_methods_share_the_trained_models",
    "`evaluate`, `bench`": f"{MISLABELING}two_seeds_give_two_curves_of_the_share_found",
    "saved results": f"{MISLABELING}every_run_has_a_file_and_every_method_a_summary",
    "`build_noisy_training_dataset()`": f"{MISLABELING}another_seed_flips_other_labels",
    "`loss_function` of the factories": (
        f"{FACTORIES}first_order_scores_are_those_of_the_strategy_made_by_hand"
    ),
    "labels": f"{MISLABELING}the_noise_is_the_same_on_every_pass_and_the_images_stay",
    "`dataset_hessian_size`": f"{FACTORIES}the_size_for_the_hessian_counts_examples",
    "`start_layer` of the factories": "FirstOrderFactory('exact').start_layer is None",
    "`ihvp_mode`": f"{FACTORIES}settings_reach_an_iterative_strategy",
    "`RPSL2Factory`, `RPSLJEFactory`": f"{CIFAR}flags_of_influenciae_reach_the_factories",
    "`ModelsSaver`: learning rate": (
        "benchmark/test_models_saver.py::"
        "test_the_rates_are_those_of_the_schedule_at_the_last_step_of_each_epoch"
    ),
    "`ModelsSaver(saving_path=...)`": (
        "benchmark/test_models_saver.py::test_the_files_give_the_same_tracin_as_the_models"
    ),
    "CIFAR-10": f"{CIFAR}images_of_tfds_are_scaled_and_come_one_by_one",
    "runner": f"{CIFAR}flags_of_influenciae_reach_the_factories",
    "figures": (
        "plots/test_images.py::test_a_figure_is_shown_only_on_request_and_closed_afterwards"
    ),
    "brightness of images": (
        "plots/test_images.py::test_images_keep_their_brightness_relative_to_each_other"
    ),
    "`BenchmarkDisplay.load_bench_result`": (
        "plots/test_benchmark.py::test_results_are_plotted_from_their_folder"
    ),
}

CLAIMS = {
    "What is different on purpose": ON_PURPOSE,
    "Inverse-Hessian-vector products": STRATEGIES_OF_THE_INVERSE,
    "Methods": METHODS,
    "Benchmark": BENCHMARK,
}
